"""Texts on which two tokenizers are compared: prose, code, numbers, emoji, several scripts."""

import random
from collections.abc import Sequence

WORDS: dict[str, Sequence[str]] = {
    "English": ("The", "old", "lighthouse", "keeper's", "don't", "we'll", "I'M", "HELLO", "reading",
                "co-operate", "naïve", "café", "end.", "end,", "(really?)", "\"quoted\"", "…", "—"),
    "code": ("def", "f(x):", "return", "x**2", "for(int", "i=0;i<n;++i){", "}", "self._value",
             "snake_case", "camelCase", "0xFF", "\"\\n\"", "# comment", "=>", "!=", "&&", "</div>",
             "SELECT *", "import", "a[i]", "::", "//", "<|", "|>", "[INST]"),
    "numbers": ("0", "7", "42", "1234567890", "3.14159", "1,000,000", "1e-5", "20%", "$5", "½", "²",
                "٣٤", "१२", "2024-02-29", "12:30", "007", "№5", "Ⅷ", "x86_64"),
    "emoji": ("🙂", "👩‍👩‍👧‍👦", "🇩🇪", "❤️", "👍🏽", "🎉🎉🎉", "©", "™", "→", "∑",
              "≠", "½", "€", "☃️"),
    "scripts": ("привет,", "мир", "ПРИВЕТ", "Ёлка", "γειά", "σου",  # noqa: RUF001
                "שלום", "مرحبا", "بالعالم", "नमस्ते", "दुनिया", "你好，", "世界。",  # noqa: RUF001
                "今日は", "カタカナ", "안녕하세요", "สวัสดี", "Việt", "Straße", "ĳsland",
                "İstanbul", "ﬁn", "ქართული", "አማርኛ", "தமிழ்", "ትግርኛ"),
}  # fmt: skip
GAPS = (" ", " ", " ", " ", "  ", "   ", "\n", "\n\n", "\n\n\n", "\t", " \n", "\n  ", "\r\n", "",
        "        ", "\n\n\n\n\n", "\t\t", "\u00a0", "\u3000")  # fmt: skip


def sample_texts(count: int = 500, seed: int = 0) -> list[str]:
    """Texts of up to 40 words of one kind or of all, with all kinds of gaps; always the same."""
    chosen = random.Random(seed)  # noqa: S311 - nothing secret
    every = [word for words in WORDS.values() for word in words]
    texts = []
    for index in range(count):
        kinds = list(WORDS)
        words = every if index % 3 == 0 else WORDS[kinds[index % len(kinds)]]
        gaps = GAPS if index % 2 else GAPS[:4]
        parts = [chosen.choice(gaps)] if index % 5 == 0 else []
        for _ in range(chosen.randint(1, 40)):
            parts += [chosen.choice(words), chosen.choice(gaps)]
        texts.append("".join(parts if index % 7 == 0 else parts[:-1]))
    return texts
