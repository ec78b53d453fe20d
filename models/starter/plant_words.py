"""The vocabulary of an invented industrial plant: word lists, nothing else.

Promise: every name, machine, fault, quantity and action that a note can mention stands in this file
or is spelled by `syllable_name` from the syllables below.
Never: names of real plants or people; no randomness of its own (the caller passes the generator).
"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Quantity:
    """One measurable quantity: its unit and the closed range a reading is drawn from."""

    name: str
    unit: str
    low: float
    high: float
    decimals: int

    def draw(self, rng: random.Random) -> str:
        """Spell one reading the way a note spells it, without the unit."""
        if self.decimals == 0:
            return str(rng.randint(int(self.low), int(self.high)))
        return f"{rng.uniform(self.low, self.high):.{self.decimals}f}"


EQUIPMENT: dict[str, str] = {
    "Pump": "P",
    "Valve": "V",
    "Fan": "F",
    "Compressor": "K",
    "Tank": "T",
    "Motor": "M",
    "Boiler": "B",
    "Filter": "FL",
    "Conveyor": "CV",
    "Mixer": "MX",
    "Turbine": "TB",
    "Chiller": "CH",
    "Generator": "G",
    "Reactor": "R",
    "Dryer": "D",
    "Crane": "CR",
    "Furnace": "H",
    "Separator": "S",
    "Heater": "HT",
    "Cooler": "C",
}

QUANTITIES: tuple[Quantity, ...] = (
    Quantity("temperature", "C", 15, 240, 0),
    Quantity("pressure", "bar", 0.5, 24.0, 1),
    Quantity("vibration", "mm/s", 0.8, 19.0, 1),
    Quantity("flow", "m3/h", 4, 320, 0),
    Quantity("level", "%", 2, 99, 0),
    Quantity("speed", "rpm", 300, 3600, 0),
    Quantity("current", "A", 5, 190, 0),
    Quantity("power", "kW", 2, 480, 0),
)

FAULT_ADJECTIVES: tuple[str, ...] = (
    "small", "severe", "slow", "sudden", "repeated", "slight", "new", "strange", "large", "brief",
)  # fmt: skip
FAULT_NOUNS: tuple[str, ...] = (
    "oil leak", "water leak", "steam leak", "seal leak", "gas leak", "bearing noise", "gear noise",
    "vibration alarm", "low flow", "high load", "blocked inlet", "blocked outlet", "cooling fault",
    "sensor fault", "power fault", "loose coupling", "loose belt", "cracked weld", "cracked housing",
    "worn bearing", "worn belt", "pressure drop", "pressure rise", "level alarm", "motor trip",
    "valve jam", "smoke smell", "rust spot",
)  # fmt: skip

ACTION_VERBS: tuple[str, ...] = (
    "replaced", "cleaned", "checked", "tightened", "repaired", "adjusted", "greased", "isolated",
    "inspected", "reset",
)  # fmt: skip
ACTION_OBJECTS: tuple[str, ...] = (
    "seal", "bearing", "coupling", "belt", "filter", "strainer", "gasket", "sensor", "breaker",
    "housing", "inlet", "outlet", "cable", "drain", "guard", "relief valve", "drive", "bolts",
)  # fmt: skip

STATUSES: tuple[str, ...] = ("open", "closed", "waiting for parts", "under watch")
SHIFTS: tuple[str, ...] = ("early", "day", "late", "night")
MONTHS: tuple[str, ...] = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip

FIRST_NAMES: tuple[str, ...] = (
    "Ada", "Alan", "Alice", "Amir", "Ana", "Anton", "Aylin", "Ben", "Bianca", "Boris", "Carla",
    "Carlos", "Chloe", "Dana", "Daniel", "Dario", "David", "Diego", "Elena", "Elif", "Emil", "Emma",
    "Erik", "Eva", "Farid", "Felix", "Fiona", "Frank", "Greta", "Hana", "Hans", "Hugo", "Ines",
    "Irina", "Ivan", "Ivo", "James", "Jana", "Jean", "Jens", "John", "Jonas", "Julia", "Karim",
    "Karl", "Kate", "Kenji", "Lars", "Laura", "Lena", "Leo", "Lin", "Lucas", "Luis", "Magda", "Mara",
    "Marco", "Maria", "Mark", "Marta", "Mary", "Max", "Mei", "Mila", "Milan", "Nadia", "Nils", "Nina",
    "Noah", "Nora", "Olga", "Omar", "Oscar", "Otto", "Paul", "Pavel", "Peter", "Petra", "Priya",
    "Rafael", "Rita", "Robert", "Rosa", "Sam", "Sara", "Sofia", "Stefan", "Susan", "Tara", "Theo",
    "Thomas", "Tina", "Tom", "Uma", "Vera", "Victor", "Walter", "Wei", "Yara", "Yusuf", "Zoe",
)  # fmt: skip
LAST_NAMES: tuple[str, ...] = (
    "Adler", "Almeida", "Andersson", "Bauer", "Becker", "Bell", "Berger", "Bianchi", "Brandt",
    "Brown", "Carter", "Castro", "Chen", "Conti", "Costa", "Dahl", "Demir", "Diaz", "Dubois",
    "Eriksen", "Evans", "Falk", "Farkas", "Ferrari", "Fischer", "Fontaine", "Garcia", "Gomez",
    "Green", "Gruber", "Haas", "Hall", "Hansen", "Hartmann", "Hoffmann", "Holm", "Horvat", "Huber",
    "Ivanov", "Jansen", "Johnson", "Jones", "Kaya", "Keller", "Khan", "Klein", "Koch", "Kovacs",
    "Kumar", "Lambert", "Larsen", "Laurent", "Lee", "Lehmann", "Lindqvist", "Lopez", "Maier",
    "Marino", "Martin", "Mendes", "Meyer", "Miller", "Moreau", "Moretti", "Morris", "Nagy",
    "Nielsen", "Novak", "Nowak", "Okafor", "Olsen", "Ortiz", "Osei", "Patel", "Peeters", "Pereira",
    "Petrov", "Popov", "Quinn", "Ramos", "Reed", "Ricci", "Roberts", "Rossi", "Roth", "Russo",
    "Sato", "Schmidt", "Schulz", "Silva", "Singh", "Smith", "Sokolov", "Suzuki", "Tanaka", "Taylor",
    "Toth", "Turner", "Varga", "Vogel", "Wagner", "Walker", "Weber", "Wilson", "Winter", "Wood",
    "Wright", "Yilmaz", "Young", "Zhang", "Ziegler",
)  # fmt: skip

_ONSETS: tuple[str, ...] = (
    "b", "br", "c", "ch", "d", "dr", "f", "g", "gr", "h", "j", "k", "kl", "l", "m", "n", "p", "qu",
    "r", "s", "sh", "sk", "st", "t", "th", "tr", "v", "w", "y", "z",
)  # fmt: skip
_NUCLEI: tuple[str, ...] = ("a", "e", "i", "o", "u", "ai", "ea", "ie", "ou", "y")
_CODAS: tuple[str, ...] = ("", "", "", "l", "n", "r", "s", "t", "m", "nd", "rt", "ck", "x")


def chance(rng: random.Random, share: float) -> bool:
    """Return True in that share of draws."""
    return rng.random() < share


def syllable_name(rng: random.Random) -> str:
    """Spell a name nobody has, so that a model has to copy it: it cannot have learnt it."""
    num_syllables = rng.choice((1, 2, 2, 2, 3))
    parts = [rng.choice(_ONSETS) + rng.choice(_NUCLEI) + rng.choice(_CODAS) for _ in range(num_syllables)]
    return "".join(parts).capitalize()
