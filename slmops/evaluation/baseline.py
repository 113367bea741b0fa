"""The baseline that needs no language model: TF-IDF and logistic regression on the labelled rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from slmops.data.rows import Row
from slmops.errors import MissingExtraError
from slmops.runtimes.base import Generation, RuntimeInfo, Sampling

_INFO = RuntimeInfo("scikit-learn", "float64", 1 << 20, False)


@dataclass(frozen=True)
class TfidfBaseline:
    """Answers like a :class:`~slmops.runtimes.base.Runtime`, so that it is measured the same way; a prompt is a plain text."""

    vectorizer: Any
    classifier: Any
    info: RuntimeInfo = _INFO

    @classmethod
    def fit(cls, rows: Sequence[Row]) -> TfidfBaseline:
        """Learn from labelled rows: word 1-2-grams and character 2-5-grams, sublinear counts, C chosen by cross-validation.

        Raises:
            MissingExtraError: scikit-learn is not installed.
        """
        try:
            from sklearn.feature_extraction.text import TfidfVectorizer
            from sklearn.linear_model import LogisticRegression
            from sklearn.model_selection import GridSearchCV, StratifiedKFold
            from sklearn.pipeline import make_union
        except ModuleNotFoundError as error:
            raise MissingExtraError("scikit-learn", "evaluate") from error
        texts, labels = [row.question for row in rows], [str(row.answer) for row in rows]
        vectorizer = make_union(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
            TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
        )
        features = vectorizer.fit_transform(texts)
        folds = min(5, *(labels.count(label) for label in set(labels)))
        model = LogisticRegression(max_iter=1000)
        if folds < 2:
            return cls(vectorizer, model.fit(features, labels))
        search = GridSearchCV(model, {"C": [1.0, 10.0, 100.0]}, cv=StratifiedKFold(folds))
        return cls(vectorizer, search.fit(features, labels).best_estimator_)

    @property
    def parameters(self) -> int:
        """Weights of the classifier."""
        return int(self.classifier.coef_.size + self.classifier.intercept_.size)

    def tokenize(self, text: str) -> list[int]:
        """It has no tokens; the characters' code points stand for them."""
        return [ord(character) for character in text]

    def generate(self, prompts: Sequence[str], sampling: Sampling) -> list[Generation]:
        """The most likely label of each text."""
        labels = self.classifier.predict(self.vectorizer.transform(list(prompts)))
        return [Generation(str(label), (), "stop", len(prompt)) for label, prompt in zip(labels, prompts, strict=True)]

    def stream(self, prompt: str, sampling: Sampling) -> Iterator[str | Generation]:
        """The label in one piece."""
        (generation,) = self.generate([prompt], sampling)
        yield generation.text
        yield generation
