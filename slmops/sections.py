"""The sections of a recipe: frozen models that refuse unknown keys. :class:`slmops.config.Recipe` is made of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

PluginSpec = dict[str, Any]
"""A plug-in in a recipe: ``{name: ..., <its options>}``."""


class Section(BaseModel):
    """Base of all configuration: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class QualitySection(Section):
    """Bounds of the quality pass over rows; what is outside is set aside with its reason."""

    min_success: float = Field(
        0.7, ge=0, le=1, description="Least share of rows that are good; below it the stage fails. Duplicates are not bad rows"
    )
    longest: int = Field(20_000, ge=1, description="Longest question, and longest answer, in characters")
    language: str | None = Field(
        None, description="Of free answers: prompt (the question's), any, or a code such as en; absent: prompt, for translation any"
    )
    near_duplicates: float | None = Field(
        0.85, gt=0, le=1, description="Least Jaccard index of the shingles of near duplicates; null: only equal words are found"
    )
    leak_overlap: float = Field(
        0.8, gt=0, le=1, description="Least share of a held-out text's 8-grams in a training text that makes it a leak"
    )
    min_agreement: float = Field(0, ge=0, le=1, description="Least share of several answers to one question that must agree")
    max_label_ratio: float | None = Field(
        None, ge=1, description="Most training rows of a label, in times the median label's; absent: labels are not balanced"
    )


class DataSection(Section):
    """Where rows come from, what is asked of them, and how they are split."""

    source: PluginSpec = Field(description="Source of the rows: name and options")
    max_bad_share: float = Field(0.05, ge=0, le=1, description="Share of bad rows above which the run stops at once")
    validation_share: float = Field(
        0.15, gt=0, lt=1, description="Share of the labelled rows held out where no validation file is given"
    )
    test_share: float = Field(
        0.2, ge=0, lt=1, description="Share of the labelled rows held out where no test file is given; 0 where nothing is measured"
    )
    special_tokens: Literal["error", "text", "add"] = Field(
        "error",
        description="Tokens of another model's format in a text_template: error, text, which takes them as plain text, or add, "
        "which makes them tokens of the model that is fine-tuned",
    )
    quality: QualitySection = QualitySection()


class LoraSection(Section):
    """Low-rank adaptation (Hu et al. 2021)."""

    r: int = Field(16, ge=1, description="Rank")
    alpha: int = Field(32, ge=1, description="Scale; the update is multiplied by alpha / r")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the adapter's input")
    dora: bool = Field(False, description="Train length and direction of the weights apart (DoRA, Liu et al. 2024)")
    bits: Literal[4, 8] | None = Field(
        None, description="Hold the frozen weights in so many bits while the adapter is trained (QLoRA, Dettmers et al. 2023)"
    )
    target_modules: tuple[str, ...] | None = Field(
        None, description="Ends of the names of layers that get an adapter, such as q_proj; absent: all linear ones but the output"
    )
    modules_to_save: tuple[str, ...] = Field((), description="Ends of the names of layers that are trained whole beside it")

    @model_validator(mode="after")
    def _weights_are_numbers(self) -> LoraSection:
        if self.bits is not None and (self.dora or self.modules_to_save):
            raise ValueError("with bits, neither dora nor modules_to_save: both need the frozen weights as numbers")
        return self


class BottleneckSection(Section):
    """Bottleneck adapters (Houlsby et al. 2019, Pfeiffer et al. 2021); they cannot be merged into the weights."""

    kind: Literal["houlsby", "pfeiffer"] = Field(
        "pfeiffer", description="After attention and feed-forward network (houlsby), or after the latter alone (pfeiffer)"
    )
    reduction_factor: float = Field(16, ge=1, description="Width of the model in widths of the bottleneck")
    size: int | None = Field(None, ge=1, description="Width of the bottleneck; takes the place of reduction_factor")

    def size_for(self, width: int) -> int:
        """Width of the bottleneck in a model of that width."""
        return self.size if self.size is not None else max(1, round(width / self.reduction_factor))


class OnPolicySection(Section):
    """Learning from the student's own samples, which the teacher scores (GKD, Agarwal et al. 2024)."""

    share: float = Field(
        0.5, ge=0, le=1, description="Share of the updates, drawn at random, that are about own samples (the paper's λ); 0: none"
    )
    every: int = Field(
        4, ge=1, description="Updates that samples are drawn for at once; more take less time, and their samples are older"
    )
    temperature: float = Field(1.0, ge=0, description="Softness of the sampling; 0 takes the likeliest token")
    max_new_tokens: int | None = Field(
        None, ge=1, description="Longest sample in tokens; absent: as long as the longest answer that is trained on"
    )
    k: int | None = Field(None, ge=1, description="Tokens that the teacher's score of a position keeps; absent: signals.k")


class TrainingSection(Section):
    """One training run. Give ``epochs`` or ``max_steps``."""

    lora: LoraSection | None = Field(None, description="Train a low-rank adapter and merge it; absent: train all weights")
    bottleneck: BottleneckSection | None = Field(None, description="Train bottleneck adapters; only fine-tuning can")
    objectives: tuple[PluginSpec, ...] = Field(
        ({"name": "cross_entropy"},), min_length=1, description="Weighted sum of losses: name, weight, options"
    )
    learning_rate: float = Field(5e-4, gt=0, description="Peak learning rate")
    epochs: float = Field(3, gt=0, description="Passes over the rows")
    max_steps: int | None = Field(None, ge=1, description="Optimizer updates; takes the place of epochs")
    batch_size: int = Field(16, ge=1, description="Rows a forward pass")
    gradient_accumulation_steps: int = Field(1, ge=1, description="Forward passes an optimizer update")
    lr_scheduler_type: Literal[
        "cosine", "linear", "constant", "constant_with_warmup", "cosine_with_restarts", "polynomial", "inverse_sqrt"
    ] = Field("cosine", description="How the learning rate falls from its peak, by transformers' names")
    warmup_share: float = Field(0.1, ge=0, lt=1, description="Share of the updates in which the learning rate rises")
    warmup_steps: int | None = Field(None, ge=0, description="Updates in which it rises; takes the place of warmup_share")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm")
    freeze_embeddings: bool = Field(False, description="Leave the embedding matrix as it is")
    max_length: int = Field(
        512, ge=8, description="Longest row in tokens; longer ones are set aside. Texts are cut into blocks of so many"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Autocast type; auto: bfloat16 where the processor has it"
    )
    gradient_checkpointing: bool = Field(
        False,
        description="Compute the activations of each layer again for its gradient instead of keeping them: less memory, more time",
    )
    checkpoint_seconds: float = Field(60, ge=0, description="Time between checkpoints")
    save_steps: int | None = Field(None, ge=1, description="Updates between checkpoints; takes the place of checkpoint_seconds")
    save_total_limit: int = Field(2, ge=1, description="Newest checkpoints that are kept while it runs; none is when it is done")
    keep: Literal["last", "best"] = Field(
        "last", description="Weights that are saved: those after the last update, or those with the lowest validation loss"
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="Looks at the validation loss (there are eight a run) without a new lowest after which it stops; absent: never",
    )
    eval_steps: int | None = Field(
        None, ge=1, description="Updates between looks at the validation loss; absent: eight looks a run"
    )
    eval_batch_size: int = Field(32, ge=1, description="Rows a forward pass of such a look")
    logging_steps: int | None = Field(
        None, ge=1, description="Updates between lines of progress and reports; absent: reports at each look, and no lines"
    )
    report_to: tuple[str, ...] = Field(
        (), description="What is told of the training on its way: tensorboard, wandb, mlflow, …, all; nothing by default"
    )
    logging_dir: Path | None = Field(None, description="Folder of TensorBoard's files; absent: logs in the run's folder")
    on_policy: OnPolicySection | None = Field(
        None, description="Learn from the student's own samples too, scored by the teacher; absent: from the answers alone"
    )

    @field_validator("report_to", mode="before")
    @classmethod
    def _as_people_write_names(cls, names: Any) -> Any:
        """One name, several with commas, a list of such; none is nobody."""
        listed = [names] if isinstance(names, str) else [] if names is None else names
        split = [one.strip() for name in listed for one in str(name).split(",")]
        return tuple(dict.fromkeys(name for name in split if name and name != "none"))

    @model_validator(mode="after")
    def _one_kind_of_adapter(self) -> TrainingSection:
        if self.lora is not None and self.bottleneck is not None:
            raise ValueError("lora and bottleneck are two ways to train: give one")
        return self

    @field_validator("on_policy")
    @classmethod
    def _without_a_share_there_is_none(cls, on_policy: OnPolicySection | None) -> OnPolicySection | None:
        return on_policy if on_policy is not None and on_policy.share else None

    @property
    def without_teacher(self) -> TrainingSection:
        """The same training on the answers' text alone."""
        return self.model_copy(update={"objectives": ({"name": "cross_entropy"},), "on_policy": None})


class AskedSection(Section):
    """Who is asked: one ``model``, or several ``members`` that are combined."""

    model: str | None = Field(
        None, description="API teacher such as gpt-4o, catalogue name, folder, .gguf file, hub id, or files of recorded answers"
    )
    api: dict[str, Any] = Field(default_factory=dict, description="What differs from the catalogue of API teachers: base_url, ...")
    members: tuple[dict[str, Any], ...] = Field((), description="Several teachers, each with model, api, weight, when")
    combine: PluginSpec | None = Field(
        None, description="How several answers become one: vote, best-of-n, judge, route or mixture, and its options"
    )
    requests: dict[str, Any] = Field(default_factory=dict, description="How APIs are asked: max_cost, max_concurrency, ...")
    mask_personal_data: Literal["auto"] | bool = Field("auto", description="Mask personal data in what leaves the machine")
    finders: tuple[str, ...] | None = Field(None, description="What looks for personal data; absent: all that are installed")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="Type it computes in while answering")
    engine: Literal["auto", "torch", "openvino-genai", "ort-genai"] = Field(
        "auto",
        description="What answers; auto: for answers of 32 tokens or more the fastest in a short measurement, else torch; "
        "engines beside torch have weights of 8 bits",
    )

    @model_validator(mode="after")
    def _someone_answers(self) -> AskedSection:
        if (self.model is None) == (not self.members):
            raise ValueError("give either model or members")
        return self


class TeacherSection(AskedSection):
    """Who teaches."""

    max_new_tokens: int | None = Field(
        None, ge=1, description="Longest answer of the teacher in tokens, its reasoning included; absent: answers.max_new_tokens"
    )
    tune: TrainingSection | None = Field(None, description="Tune the teacher on the labelled rows first; absent: use it as it is")


class AnswersSection(Section):
    """Stage 1, the answers."""

    chunk_rows: int = Field(64, ge=1, description="Rows a chunk; a chunk is one batch and the unit of resume")
    max_new_tokens: int = Field(16, ge=1, description="Longest answer in tokens")
    retries: int = Field(0, ge=0, description="Times an answer is asked again that is invalid or, against gold, wrong")
    retry_temperature: float = Field(0.8, gt=0, description="Softness of the sampling from the second time on")
    label_source: Literal["gold", "teacher", "agree"] = Field(
        "gold", description="What rows with a gold answer train on: gold, the teacher's answer, or gold where both agree"
    )
    min_success: float = Field(0.7, ge=0, le=1, description="Least share of usable answers; below it the run stops")


class SignalsSection(Section):
    """Stage 1, the teacher's distribution at the answer positions."""

    form: Literal["topk", "sampled"] = Field(
        "topk",
        description="topk: the k most likely tokens exactly and the rest as one mass; sampled: tokens drawn from the teacher, "
        "which take fewer bytes and are right on average, for free answers where the teacher's tail matters",
    )
    k: int = Field(32, ge=1, description="topk: tokens kept a position. What an API says of its tokens is always kept as topk")
    samples: int = Field(
        32, ge=1, le=255, description="sampled: draws a position; on open text 32 are about 12 different tokens, in 39 bytes"
    )


class StudentSection(Section):
    """The model that learns."""

    model: str | None = Field(
        None, description="Catalogue name, folder, .gguf file or hub id; absent: the teacher's, where it is one"
    )
    layers: int | None = Field(None, ge=2, description="Cut it to so many layers; absent: all, or what the target allows")
    keep: Literal["first", "uniform", "importance", "copying"] | tuple[Annotated[int, Field(ge=0)], ...] = Field(
        "first",
        description="Which layers a cut keeps: the first ones, evenly spread ones, those that the training rows need most, those "
        "that copy (for answers in words of the question), or these: [0, 1, 2, 16, 17, 29]",
    )
    vocabulary: Literal["all", "trim"] | Annotated[int, Field(ge=256)] | None = Field(
        None,
        description="Tokens a cut keeps: all, trim (what training rows and pool need, and a margin of common ones), or how many; "
        "absent: all, or with a target what it allows",
    )
    target: str | None = Field(
        None, description="Cut it to 30M (weights), 20MB (the package) or 25ms (a request): vocabulary first, then layers"
    )
    target_precision: Literal["float32", "int8", "int4"] = Field(
        "int4", description="What a target in MB is about: the folder in float32, or a package of 8 or 4 bits"
    )

    @model_validator(mode="after")
    def _layers_are_named_once(self) -> StudentSection:
        if isinstance(self.keep, tuple):
            if len(self.keep) < 2 or list(self.keep) != sorted(set(self.keep)):
                raise ValueError("keep: give two or more numbers of layers from 0, each once, in their order")
            if self.layers not in (None, len(self.keep)):
                raise ValueError(f"keep names {len(self.keep)} layers, and layers says {self.layers}: leave layers out")
        return self


class ParitySection(Section):
    """How far a converted model may be from the one it was made of."""

    rows: int = Field(200, ge=1, description="Validation and training rows to compare on")
    min_agreement: float = Field(0.95, ge=0, le=1, description="Least share of equal greedy answers")
    max_drop: float = Field(0.01, ge=0, le=1, description="Largest loss of the primary measure")


class ExportSection(Section):
    """Conversion to the engine that serves."""

    runtime: str = Field("ort-genai", description="Engine to convert for")
    schemes: tuple[str, ...] = Field(
        ("int4", "int4-mixed", "w8a8", "int8"), min_length=1, description="For students: tried in this order until one passes"
    )
    teacher_schemes: tuple[str, ...] = Field(
        ("w8a8", "int8"), min_length=1, description="For the quantized teacher, which fewer bits cost more: the same"
    )
    max_length: int = Field(512, ge=32, description="Prompt and answer together, in tokens, that the packaged model accepts")
    parity: ParitySection = ParitySection()


class JudgeSection(AskedSection):
    """Who compares each answer to a test row with the reference, in both orders."""

    rubric: str | None = Field(None, min_length=1, description="What makes an answer the better one; absent: helpful, right, short")
    max_new_tokens: int = Field(200, ge=8, description="Longest verdict in tokens, its reasons included")
    attempts: int = Field(3, ge=1, description="Times a comparison is asked until there is a verdict; without one it is a tie")
    min_success: float = Field(0.7, ge=0, le=1, description="Least share of comparisons with a verdict; below it the run stops")


class ComparisonSection(Section):
    """How models are compared."""

    judge: JudgeSection | None = Field(
        None, description="Whose win rate decides, for tasks of free text; absent: the task's own measure decides"
    )
    latency_requests: int = Field(60, ge=5, description="Timed requests, one at a time")
    batch_size: int = Field(8, ge=1, description="Requests at once, for requests/s")
    concurrency: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1, 4, 8), description="Requests at once, each measured by itself: requests/s and what a request waits"
    )
    threads: int | None = Field(None, ge=1, description="CPU threads of every engine; absent: as many as there are cores")
    price_per_machine_hour: float = Field(0.1, gt=0, description="For the cost of a million requests; any currency")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Of every interval")


class EvaluationSection(ComparisonSection):
    """How the models of a run are compared."""

    targets: dict[str, float] = Field(
        default={"accuracy kept": 0.92, "latency": 0.85, "memory": 0.8, "cost": 0.6, "requests/s": 6.0, "file size": 0.75},
        description="Headline figures of the package against the float32 teacher: shares kept or saved, times as many requests/s",
    )


_STRATEGIES = {"optuna": "tpe", "bayes": "tpe", "bayesian": "tpe", "exhaustive": "grid"}
"""What people call a strategy, and the name it has here."""


class StrategySection(Section):
    """How the values of the next trial are chosen; the name alone will do, also ``grid_search``, ``bayesian`` or ``optuna``."""

    type: Literal["random", "grid", "tpe"] = Field(
        "tpe", description="random, grid (every combination, in order) or tpe, which learns from the trials before"
    )
    num_trials: int | None = Field(None, ge=1, description="Trials in all; absent: 20, of a grid every combination")

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, values: Any) -> Any:
        return {"type": values} if isinstance(values, str) else values

    @field_validator("type", mode="before")
    @classmethod
    def _as_people_call_it(cls, name: Any) -> Any:
        if not isinstance(name, str):
            return name
        plain = re.sub(r"[-_ ]?(search|sampler|sampling|optimi[sz]ation)$", "", name.strip().lower())
        return _STRATEGIES.get(plain, plain)


class SearchSection(Section):
    """What ``slmops search`` varies; nothing else reads it. The names ``search_strategy`` and ``search_space`` are read too."""

    strategy: StrategySection = StrategySection()
    space: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Values by dotted path or unique short name: type (float, int, choice) and its bounds"
    )
    goals: tuple[str, ...] = Field((), description="Measures to make better; absent: the task's own. Several give a Pareto front")
    row: Literal["distilled", "answers-only", "control"] = Field("distilled", description="Which student is trained in a trial")
    prune: Literal["median", "halving", "none"] = Field(
        "median", description="How a trial whose validation loss is bad is stopped early; with several goals none is"
    )

    @model_validator(mode="before")
    @classmethod
    def _names_people_write(cls, values: Any) -> Any:
        return {key.removeprefix("search_"): value for key, value in values.items()} if isinstance(values, dict) else values
