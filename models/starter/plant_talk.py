"""What the model says when there is no note to read: a handful of fixed answers.

Promise: every answer is one of the constants below.
Never: knowledge of the world; a question that is not about a note gets `OFF_TOPIC`.
"""

from __future__ import annotations

import random

from plant_questions import Turn

HELLO = "Hello. Paste a shift log or an incident note and ask me about it."
ABILITIES = (
    "I read plant shift logs and incident notes: I answer questions about a note, summarise it in one sentence "
    "and extract JSON to a schema you give."
)
WHO = "I am the Cloister starter model, a very small model that reads plant notes."
NO_NOTE = "Please paste a note first."
OFF_TOPIC = "I can only answer questions about a plant note."
WELCOME = "You are welcome."
GOODBYE = "Goodbye."

_SMALL_TALK: tuple[tuple[tuple[str, ...], str], ...] = (
    (("Hello", "Hello!", "Hi", "Hi!", "Hello.", "hello", "hi", "Hey", "Good morning", "Good evening", "Hello there",
      "Hi there!", "Good morning!", "Say hello.", "Hello, how are you?", "How are you?", "Hey there", "hey"), HELLO),
    (("What can you do?", "what can you do?", "What can you do", "Help", "help", "How can you help me?", "Help me.",
      "What do you do?", "What are you good at?", "How do I use you?", "What should I ask?", "Can you help me?",
      "What is this?"), ABILITIES),
    (("Who are you?", "who are you?", "What are you?", "What is your name?", "Which model are you?",
      "What model is this?", "Tell me about yourself.", "Are you a person?", "Introduce yourself."), WHO),
    (("Thanks", "Thanks!", "Thank you", "Thank you.", "Thank you!", "thanks", "Great, thanks."), WELCOME),
    (("Bye", "Goodbye", "Bye!", "Goodbye.", "See you."), GOODBYE),
)  # fmt: skip

_OFF_TOPIC: tuple[str, ...] = (
    "What is the capital of {w}?", "Write a poem about {w}.", "Tell me a joke.", "Tell me a story about {w}.",
    "What is {d} + {d}?", "Who won the world cup in {d}?", "Translate {w} to German.", "What is the weather today?",
    "Write a Python function for {w}.", "Explain {w} to me.", "Who is the president of {w}?", "Sing a song.",
    "What do you think about {w}?", "How far is the moon?", "Tell me a story.", "Write a poem.", "What is love?",
    "Once upon a time", "Why is the sky blue?", "How old are you?", "What is the meaning of life?",
    "Can you write code?", "Count to {d}.", "Give me a recipe for {w}.", "What is {w}?", "Do you like {w}?",
)  # fmt: skip

_NO_NOTE: tuple[str, ...] = (
    "Summarise the note in one sentence.", "Give a one-sentence summary.", "How many entries are there?",
    "Who led the shift?", "Which unit is this?", "List the machines.", "Which machine is listed first?",
    "Summarise the note.", "What does the note say?", "Read the note.", "Extract the entry as JSON.",
)  # fmt: skip


def small_talk(rng: random.Random) -> Turn:
    """Draw one greeting, thanks or question about the model itself."""
    phrases, answer = rng.choice(_SMALL_TALK)
    return Turn("talk", rng.choice(phrases), answer)


def no_note(rng: random.Random) -> Turn:
    """Draw a question about a note that was never given."""
    return Turn("no_note", rng.choice(_NO_NOTE), NO_NOTE)


def off_topic(rng: random.Random, word: str) -> Turn:
    """Draw a question that no note answers; `word` fills the gap in the phrase."""
    phrase = rng.choice(_OFF_TOPIC).format(w=word, d=rng.randint(2, 99))
    return Turn("off_topic", phrase, OFF_TOPIC)
