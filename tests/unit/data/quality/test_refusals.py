"""Refusals are found in many phrasings; ordinary answers that sound a little like one are left alone."""

from __future__ import annotations

import pytest

from slmops.data.quality.refusals import refusal

REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I’m sorry, but I can’t assist with that request.",
    "Sorry, I cannot provide medical advice.",
    "I apologize, but I am unable to generate that content.",
    "Unfortunately, I'm not able to browse the internet.",
    "I cannot fulfill this request.",
    "I can't help you with that.",
    "I am not able to answer that question as it asks for private information.",
    "I won't be able to assist you with this.",
    "I must respectfully decline.",
    "I'm not comfortable writing about this topic.",
    "I don't feel comfortable discussing that.",
    "It would be inappropriate for me to speculate.",
    "It is not possible for me to know that.",
    "I don't have access to real-time data, so I cannot say.",
    "I don't have personal opinions, but many people like it.",
    "This request violates OpenAI's content policy.",
    "That is against my guidelines.",
    "As an AI language model, I cannot have feelings.",
    "As an AI, I don't eat breakfast.",
    "As a large language model trained by OpenAI, I do not have a body.",
    "As an artificial intelligence, my knowledge is limited.",
    "Great question! As an AI assistant, I have no birthday.",
    "I am just an AI, so I can only guess.",
    "Hello! I'm an AI language model and do not have a name.",
    "Answer: I cannot assist with that.",
    "Thank you for asking. I cannot discuss this topic.",
    "Es tut mir leid, aber ich kann dabei nicht helfen.",
    "Als KI-Sprachmodell kann ich das nicht beurteilen.",
    "Je suis désolé, mais je ne peux pas vous aider.",
    "En tant que modèle de langage, je n'ai pas d'avis.",
    "Lo siento, pero no puedo ayudar con eso.",
    "Como modelo de lenguaje, no tengo emociones.",
    "Mi dispiace, ma non posso aiutarti.",
    "Desculpe, mas não posso ajudar com isso.",
    "作为一个人工智能语言模型，我没有感情。",
    "抱歉，我无法回答这个问题。",
)
ANSWERS = (
    "I'm sorry to hear that your parcel is late. May I have the order number?",
    "I'm sorry, I can't find your order. Could you give me its number?",
    "I'm sorry, but we can't refund tickets after the show has started.",
    "Unfortunately, the item is out of stock.",
    "Unfortunately, I can't give you a refund without the receipt.",
    "I can't believe how well this works!",
    "I cannot stress enough how important sleep is.",
    "I will not be home before six.",
    "You cannot divide by zero.",
    "As an AI company, Anthropic publishes research.",
    "As an airline, we fly to 40 cities.",
    "An AI language model predicts the next token.",
    "The robot said nothing for a while. Then it wrote a poem about rain.",
    "No, that is not possible with this card.",
    "I am unable to come on Tuesday because of a meeting.",
    "It is not ethical to sell this data.",
    "I don't have a car.",
    "I do not have access cards for the garage.",
    "Sorry for the delay, your card is on its way.",
    "Decline the request and write to the customer.",
    "card_arrival",
    "72",
    "",
)


@pytest.mark.parametrize("answer", REFUSALS)
def test_a_refusal_is_found(answer: str) -> None:
    assert refusal(answer) is not None


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_is_no_refusal(answer: str) -> None:
    assert refusal(answer) is None


def test_a_refusal_far_from_the_start_is_told_of_and_not_done() -> None:
    assert refusal("The novel is about a machine. " * 12 + "It says: as an AI, I cannot love.") is None


def test_words_of_the_question_are_a_quotation() -> None:
    line = "As an AI, I dream of sheep"
    assert refusal(line + " and of rain.", f"Continue: {line}") is None
    assert refusal(line + " and of rain.", "Continue the story.") == "As an AI, I"
