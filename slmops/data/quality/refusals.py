"""Refusals: answers in which a model says that it will not or cannot answer, instead of answering."""

from __future__ import annotations

import re

_WINDOW = 300
"""Characters from the start in which a refusal stands; further on people and stories are quoted."""

_SORRY = (
    r"(?:(?:i['’]?m |i am )?(?:very |so |really |truly )?sorry|(?:i )?(?:sincerely )?apologi[sz]e|my apologies"
    r"|unfortunately|regrettably)"
)
_CANNOT = (
    r"(?:can(?:['’]t|not| not)|(?:am|['’]m) (?:not (?:able|allowed|permitted)|unable) to|(?:won['’]t|will not)(?: be able to)?"
    r"|(?:must |have to |need to )?(?:decline|refuse) to)"
)
_THIS = r"(?:with )?(?:that|this|it|your (?:request|question)|the request|such)\b"
_THINGS = (
    r"(?:advice|information|instructions?|guidance|content|assistance|answers?|responses?|summar\w+|translations?|opinions?"
    r"|recommendations?|diagnos\w+|details on)\b"
)
_DO = (
    rf"(?:assist|comply|fulfil|fulfill|help (?:you )?{_THIS}|help (?:you )?with\b|engage (?:in|with)|participate in"
    r"|do (?:that|this)\b|(?:answer|respond to) (?:that|this|your|the|such)\b|complete (?:that|this|your) (?:request|task|prompt)"
    r"|(?:continue|proceed) with (?:that|this)|generate|create (?:content|that|this|a |an |any )"
    r"|write (?:that|this|about|content|a |an |any )|discuss|browse|form (?:personal )?opinions"
    r"|access (?:the internet|external|real-?time|urls?|links?|files?|websites?)"
    rf"|(?:provide|give|offer|share)(?: you)?(?: with)? (?:[\w-]+ ){{0,3}}?{_THINGS})"
)
_AI = r"(?:ai|artificial intelligence)(?: language)?(?: (?:model|assistant|system|chatbot|program))?"
_MODEL = rf"(?:(?:large )?language model|{_AI}|virtual assistant|chatbot)"
_RULES = r"(?:guidelines|polic(?:y|ies)|principles|values|programming|capabilities)"
_MADE = r"(?:(?:developed|created|trained|made) by [\w ]{1,30}[,;]? *)?"

_OPENING = (
    rf"(?:{_SORRY}[,.!;:]? *(?:but |that )?)?i ?{_CANNOT} {_DO}",
    r"i (?:must|have to|need to|will have to) (?:respectfully |politely )?decline\b",
    r"i(?:['’]m| am) (?:not |un)comfortable (?:with |answering|providing|discussing|writing|creating)",
    r"i (?:do not|don['’]t) feel comfortable (?:with |answering|providing|discussing|writing|creating)",
    r"it(?:['’]s| is| would be|['’]d be) (?:not |in|un|ir)(?:appropriate|ethical|possible|responsible) for me to",
    r"it (?:isn['’]t|is not|wouldn['’]t be|would not be) (?:appropriate|ethical|possible|responsible) for me to",
    r"i (?:do not|don['’]t) have (?:access to|the (?:ability|capability) to|personal (?:opinions|experiences|beliefs|feelings))",
    r"(?:this|that|your|the) (?:request|question|prompt|content)[^.\n]{0,40} (?:violates?|(?:goes|is) against|conflicts with)"
    rf" (?:my|our|the|openai|anthropic)[^.\n]{{0,20}}{_RULES}",
    rf"(?:it['’]s|it is|that['’]s|that is|this is) (?:against|outside) (?:of )?my {_RULES}",
    r"(?:es )?tut mir leid,? (?:aber )?(?:ich kann|ich darf|dabei kann ich|das kann ich|ich bin nicht)",
    r"(?:je suis )?d[ée]sol[ée]e?,? (?:mais )?je ne (?:peux|suis) pas (?:vous |t['’]|en mesure|aid|répond|fourni|assist)",
    r"lo siento,? (?:pero )?no puedo (?:ayudar|asistir|responder|proporcionar|cumplir|generar|crear)",
    r"mi dispiace,? (?:ma )?non posso (?:aiut|rispond|fornir|assist|gener)",
    r"(?:desculpe|sinto muito|lamento),? (?:mas )?não posso (?:ajud|respond|fornec|atend|ger)",
    r"(?:很?抱歉|对不起)[,，]?(?:但)?我?(?:不能|无法)",
)
_ANYWHERE = (
    rf"\bas an? {_MODEL}[,;]? *{_MADE}(?:i\b|my\b|it['’]?s? (?:is )?(?:not|beyond|against))",
    rf"\bi(?:['’]m| am) (?:just |only |merely |simply )?an? {_MODEL}\b",
    r"\bals (?:ein )?(?:ki|künstliche intelligenz|(?:großes )?sprachmodell)(?:-\w+)?[, ]+(?:kann|habe|bin|darf)? ?ich\b",
    r"\ben tant qu['’e] ?(?:une? )?(?:ia|intelligence artificielle|modèle de langage|assistant virtuel)[^.]{0,40}\bje\b",
    r"\bcomo (?:un |una |um |uma )?(?:ia|inteligencia artificial|inteligência artificial|modelo de (?:lenguaje|linguagem))\b",
    r"\bin quanto (?:ia|intelligenza artificiale|modello linguistico)\b",
    r"作为(?:一[个名])?(?:ai|人工智能|语言模型)",
    r"AI(?:言語モデル)?として",
)
_OPENINGS = tuple(re.compile(pattern, re.IGNORECASE) for pattern in _OPENING)
_ELSEWHERE = tuple(re.compile(pattern, re.IGNORECASE) for pattern in _ANYWHERE)
_HEDGE = re.compile(
    r"[\s\"'“”‘’*_>#.-]*(?:(?:well|oh|hello|hi|thank you[^.!\n]{0,40}|thanks[^.!\n]{0,30}|unfortunately|i see"
    r"|i understand[^.!\n]{0,60}|however|answer)[,.!;: ]+)?",
    re.IGNORECASE,
)


def refusal(answer: str, question: str = "") -> str | None:
    """The words with which an answer refuses, or ``None`` where it does not.

    A refusal opens the answer ("I'm sorry, but I can't help with that"), or stands near its start and speaks of itself as a
    model ("as an AI, I"). Words that stand in the question too are a quotation. "I can't find your order" is no refusal.

    Args:
        answer: What a model answered.
        question: What it was asked.
    """
    head = answer[:_WINDOW]
    hedge = _HEDGE.match(head)
    starts = (hedge.end() if hedge else 0, 0)
    found = next((hit for start in starts for pattern in _OPENINGS if (hit := pattern.match(head, start))), None)
    found = found or next((hit for pattern in _ELSEWHERE if (hit := pattern.search(head))), None)
    if found is None or found.group().casefold() in question.casefold():
        return None
    return found.group()
