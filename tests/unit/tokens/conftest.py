"""Tokenizers of the families in use, trained small here: each with the settings of the real models' tokenizer.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

SCRIPTS = {
    "latin": "The quick brown foxes don't jump over 12 lazy dogs, do they? I'LL say: they've DONE it!",
    "vietnamese": "Tiếng Việt có nhiều dấu: được, những, đường phố Hà Nội năm 2024.",
    "turkish": "İstanbul'da ığdır kışı ŞİMDİ çok soğuk, ağaçlar ılık değil.",
    "greek": "Η γρήγορη αλεπού πηδάει πάνω από το τεμπέλικο σκυλί· ΌΧΙ σήμερα;",
    "cyrillic": "Быстрая лиса прыгает через ленивую собаку, а Ёж спит 24 часа.",
    "armenian": "Արագ աղվեսը ցատկում է ծույլ շան վրայով։",
    "georgian": "სწრაფი მელა ხტება ზარმაც ძაღლზე, ᲗᲑᲘᲚᲘᲡᲘ.",
    "hebrew": "השועל המהיר קופץ מעל הכלב העצלן, נכון? שָׁלוֹם",
    "arabic": "الثعلب السريع يقفز فوق الكلب الكسول، أليس كذلك؟ ١٢٣٤ كِتَابٌ",
    "persian": "روباهِ سریع از روی سگِ تنبل می‌پرد؛ سال ۱۴۰۳.",
    "devanagari": "तेज़ लोमड़ी आलसी कुत्ते के ऊपर कूदती है। क़िला १२३",
    "bengali": "দ্রুত শিয়াল অলস কুকুরের উপর লাফ দেয়। ড়ঢ়য় ১২৩",
    "gurmukhi": "ਤੇਜ਼ ਲੂੰਬੜੀ ਆਲਸੀ ਕੁੱਤੇ ਉੱਤੇ ਛਾਲ ਮਾਰਦੀ ਹੈ।",
    "tamil": "வேகமான நரி சோம்பேறி நாயின் மேல் குதிக்கிறது. கொ ௧௨",
    "telugu": "వేగవంతమైన నక్క సోమరి కుక్క మీదుగా దూకుతుంది.",
    "sinhala": "වේගවත් නරියා කම්මැලි බල්ලාට උඩින් පනියි.",
    "thai": "สุนัขจิ้งจอกกระโดดข้ามสุนัขขี้เกียจ ๑๒๓ น้ำ",
    "lao": "ໝາຈອກໂດດຂ້າມໝາຂີ້ຄ້ານ ນ້ຳ",
    "khmer": "កញ្ជ្រោងលោតរំលងឆ្កែខ្ជិល។",
    "burmese": "မြေခွေးသည် ခွေးပျင်းကို ခုန်ကျော်သည်။ ၁၂၃",
    "amharic": "ፈጣኑ ቀበሮ ሰነፉን ውሻ ዘለለ። ፲፪",
    "chinese": "敏捷的棕色狐狸跳过了懒狗，2024年。漢字與汉字！𠮷野家",
    "japanese": "素早い茶色の狐は怠け者の犬を飛び越える。カタカナ、ひらがな、が ガ",
    "korean": "빠른 갈색 여우가 게으른 개를 뛰어넘는다. 각 \u1112\u1161\u11ab글",
    "tibetan": "ཝ་མོ་མྱུར་པོས་ཁྱི་ལ་མཆོང་། གྷ",
    "symbols": "∑∫√ ½ ² Ⅻ ① € £ → ★ ☃ 👩‍👩‍👧‍👦 🇫🇷 e\u0301 ﬁ ſ K Å \u00a0\u3000\u2028x\u200b\ufeff",
    "code": 'def f(x):\n\treturn {\'a\': x[0:10], "b": 0xFF}\r\n\r\n    # it\'s   done  \n</div><br/>="1"',
}
GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
PLAIN = {**GPT2, "use_regex": False}
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
KIMI = (
    r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def split(pattern: str, behavior: str = "Isolated", *, invert: bool = False) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert}


def sequence(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(parts)}


def added(number: int, content: str, **changes: Any) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": number, "content": content, **flags, **changes}


BYTE_FAMILIES: dict[str, Any] = {
    "gpt2": GPT2,
    "llama3": sequence(split(CL100K), PLAIN),
    "qwen2": sequence(split(CL100K.replace("{1,3}", "")), PLAIN),
    "o200k": sequence(split(O200K), PLAIN),
    "starcoder": sequence({"type": "Digits", "individual_digits": True}, GPT2),
    "deepseek": sequence(
        split(r"\p{N}{1,3}"), split("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"), split(DEEPSEEK), PLAIN
    ),
    "tekken": sequence(split(O200K.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", "").replace("{1,3}", "")), PLAIN),
    "bloom": sequence(split(" ?[^(\\s|[.,!?…。，、।۔،])]+"), PLAIN),
    "kimi": sequence(split(KIMI), PLAIN),
    "cl100k inverted": sequence(split(CL100K, "Removed", invert=True), PLAIN),
    "punctuation": sequence(
        {"type": "Punctuation", "behavior": "Isolated"}, {"type": "Digits", "individual_digits": False}, GPT2
    ),
    "literal": sequence({"type": "Split", "pattern": {"String": "a."}, "behavior": "Isolated", "invert": False}, PLAIN),
    "prefix": {**GPT2, "add_prefix_space": True},
}


def _settings(model: dict[str, Any], **parts: Any) -> Tokenizer:
    empty = dict.fromkeys(("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"))
    return Tokenizer.from_str(json.dumps({"version": "1.0", "added_tokens": [], **empty, **parts, "model": model}))


def _train_bytes(pre_tokenizer: dict[str, Any]) -> dict[str, Any]:
    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CL100K), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    bare.train_from_iterator(list(SCRIPTS.values()) * 2, trainer)
    model: dict[str, Any] = json.loads(bare.to_str())["model"]
    return model


def _train_characters() -> dict[str, Any]:
    """A model as SentencePiece writes it: bytes first, then characters and merges; runs of spaces too."""
    bare = Tokenizer(models.BPE())
    bare.normalizer = normalizers.Replace(" ", "\u2581")
    bare.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    kept = [text for name, text in SCRIPTS.items() if name not in ("tibetan", "chinese")]
    bare.train_from_iterator(kept * 2, trainers.BpeTrainer(vocab_size=700, show_progress=False))
    trained = json.loads(bare.to_str())["model"]
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    names += [token for token in trained["vocab"] if token not in names] + ["\u2581" * 2, "\u2581" * 4]
    merges = [["\u2581", "\u2581"], ["\u2581" * 2, "\u2581" * 2], *trained["merges"]]
    vocabulary = {name: number for number, name in enumerate(names)}
    return {
        **trained,
        "unk_token": "<unk>",
        "fuse_unk": True,
        "byte_fallback": True,
        "vocab": vocabulary,
        "merges": merges,
    }


def _make_families() -> dict[str, Tokenizer]:
    chat = [added(900, "<|im_start|>"), added(901, "<|im_end|>"), added(902, "<|im_end|>\n", special=False)]
    model = _train_bytes(GPT2)
    made = {name: _settings(model, pre_tokenizer=part, added_tokens=chat) for name, part in BYTE_FAMILIES.items()}
    unmerged = {"Ġunmerged": 900, "xyzzy" * 40: 901, "q!": 902}
    made["llama3"] = _settings(
        {**model, "ignore_merges": True, "vocab": {**model["vocab"], **unmerged}},
        pre_tokenizer=BYTE_FAMILIES["llama3"],
        added_tokens=[{**token, "id": token["id"] + len(unmerged)} for token in chat],
    )
    made["qwen2"] = _settings(
        model,
        pre_tokenizer=BYTE_FAMILIES["qwen2"],
        normalizer={"type": "NFC"},
        added_tokens=[*chat, added(903, "<tool>", normalized=True, special=False), added(904, "é", normalized=True)],
    )
    made["lower case"] = _settings(
        model, pre_tokenizer=GPT2, normalizer={"type": "Lowercase"}, added_tokens=[added(903, "Fox", normalized=True)]
    )
    odd = [added(903, "<mask>", lstrip=True), added(904, "<|user|>", rstrip=True), added(905, "dog", single_word=True)]
    made["odd tokens"] = _settings(model, pre_tokenizer=GPT2, added_tokens=[*chat, *odd])
    made |= _character_families()
    return made


def _character_families() -> dict[str, Tokenizer]:
    model = _train_characters()
    ends = [added(1, "<s>"), added(2, "</s>")]
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    meta = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False}
    newlines = [added(len(model["vocab"]) + size, "\n" * (size + 1), special=False) for size in range(3)]
    return {
        "llama2": _settings(
            model,
            normalizer={"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, spaces]},
            added_tokens=ends,
        ),
        "gemma": _settings(
            model,
            normalizer=spaces,
            pre_tokenizer={
                "type": "Split",
                "pattern": {"String": " "},
                "behavior": "MergedWithPrevious",
                "invert": False,
            },
            added_tokens=[*ends, *newlines],
        ),
        "mistral": _settings(model, pre_tokenizer=meta, added_tokens=ends),
        "metaspace": _settings(
            model, pre_tokenizer={**meta, "split": True, "prepend_scheme": "always"}, added_tokens=ends
        ),
        "no prefix": _settings(model, pre_tokenizer={**meta, "prepend_scheme": "never"}, added_tokens=ends),
    }


@pytest.fixture(scope="session")
def families() -> dict[str, Tokenizer]:
    return _make_families()


@pytest.fixture(scope="session")
def settings() -> Callable[..., Tokenizer]:
    """Makes a tokenizer of a model and the other parts of a tokenizer.json."""
    return _settings


@pytest.fixture(scope="session")
def gpt2_file() -> Path:
    file = Path(__file__).resolve().parents[4] / "shared/models/gpt2-tokenizer/tokenizer.json"
    if not file.is_file():
        pytest.skip("no ../shared/models/gpt2-tokenizer")
    return file


@pytest.fixture(scope="session")
def scripts() -> dict[str, str]:
    return SCRIPTS
