"""Answers one question: ``python -m pipeline.export.llama_cpp QUESTION.json``."""

import sys
from pathlib import Path

from pipeline.export.llama_cpp.asking import answer

if __name__ == "__main__":
    sys.exit(answer(Path(sys.argv[1])))
