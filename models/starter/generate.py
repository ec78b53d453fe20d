"""Print synthetic notes with questions and answers, one JSON conversation a line.

`.venv/bin/python models/starter/generate.py --count 3 --seed 7`

Promise: the same options print the same bytes.
Never: mixes the training side with the evaluation side.
"""

from __future__ import annotations

import argparse
import json
import random
import sys

from plant_conversations import draw_conversation
from plant_notes import NoteShape
from plant_split import Side


def main() -> int:
    """Draw and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10, help="how many conversations")
    parser.add_argument("--turns", type=int, default=6, help="questions in each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--side", choices=[side.value for side in Side], default=Side.TRAIN.value)
    options = parser.parse_args()
    for row in range(options.count):
        rng = random.Random(f"generate:{options.seed}:{row}")
        conversation = draw_conversation(rng, NoteShape(Side(options.side)), options.turns)
        print(json.dumps({"messages": list(conversation.messages)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
