"""
Texts for the tokenizer fixtures: lines to train small vocabularies on, plain strings that are hard
for pre-tokenizers, and pieces that conversations are put together from. All written for this file.
"""

import numpy as np

SENTENCES = [
    "The quick brown fox jumps over the lazy dog, and the dog doesn't mind at all.",
    "I'm sure they'll say that we've seen it before; you'd better check what's in the box.",
    "In 2024 the library had 1,234,567 books, 98.6% of them in paper, at a cost of $12.50 each.",
    "Please search the archive for the population of Lisbon, then compute the difference in percent.",
    "The function returns a list of results; each result has a title, a score and a short text.",
    "Nobody knows where the old river begins, but everybody knows where it ends: in the sea.",
    "A model that learns from its own answers must be careful about what it calls a right answer.",
    "Der schnelle braune Fuchs springt über den faulen Hund, während es draußen größer und kälter wird.",
    "L'été dernier, où étions-nous donc ? À la plage, près d'un café très agréable, cœur léger.",
    "El niño comió una piña en la montaña; ¿cuándo volverá? ¡Mañana por la mañana!",
    "Быстрая коричневая лиса прыгает через ленивую собаку, и никто не удивляется этому.",
    "Η γρήγορη καφέ αλεπού πηδάει πάνω από το τεμπέλικο σκυλί κάθε πρωί.",
    "敏捷的棕色狐狸跳过了懒狗。今天天气很好，我们去公园散步吧！",
    "素早い茶色の狐はのろまな犬を飛び越える。カタカナとひらがなと漢字が混ざっています。",
    "빠른 갈색 여우가 게으른 개를 뛰어넘습니다. 오늘은 날씨가 좋네요.",
    "الثعلب البني السريع يقفز فوق الكلب الكسول، والسماء صافية اليوم.",
    "השועל החום המהיר קופץ מעל הכלב העצלן בבוקר יפה.",
    "तेज़ भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है और फिर सो जाती है।",
    "สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ",
    "Con cáo nâu nhanh nhẹn nhảy qua con chó lười biếng vào buổi sáng.",
    "def add(a, b):\n    return a + b  # the sum\n\nfor i in range(10):\n\tprint(f\"{i}: {add(i, 1)}\")\n",
    "const total = rows.filter((row) => row.ok).map(({ n }) => n * 2).reduce((a, b) => a + b, 0);",
    "SELECT name, count(*) FROM steps WHERE kind = 'tool' GROUP BY name ORDER BY 2 DESC LIMIT 10;",
    '{"name": "search", "arguments": {"query": "population of Lisbon", "limit": 3}}',
    "{\"type\": \"function\", \"function\": {\"name\": \"get_weather\", \"parameters\": {\"type\": \"object\", \"properties\": {}}}}",
    "<html><body><p class=\"note\">A &amp; B</p></body></html>",
    "https://example.org/path/to/page?query=one+two&lang=en#section-3",
    "😀 😃 👍🏽 👩‍👩‍👧‍👦 🇵🇹 ❤️ 🎉 ✨ emoji in a sentence 🚀!",
    "x² + y² = z², ∑ᵢ aᵢ ≤ ∞, ½ + ¼ = ¾, π ≈ 3.14159, 10⁻³",
    "system user assistant tool name arguments parameters description required string number integer",
]

HARD = [
    "", " ", "  ", "\n", "\n\n", " \n ", "\t", "\t\t x", "\r\n", "a\r\nb\r\n\r\nc", "a\n\n\n  b", "trailing  ", "  leading",
    "a  b   c    d", "word\u00a0nbsp", "thin\u2009space", "zero\u200bwidth\u200djoiner", "line\u2028sep\u2029para", "a\x85b",
    "\ufeffbom at the start", "in the \ufeff middle", "\x00\x01\x1f control", "\x7f\x80\x9f",
    "don't DON'T Don'T we'Ll I'M you'VE they'RE he'D it'S", "'s 't 're 've 'm 'll 'd", "’s and ’ll", "'\u017f long s", "rock'n'roll",
    "1 12 123 1234 12345 1234567890", "3.14159 -2e10 0x1F 1_000", "١٢٣٤٥ ۱۲۳ १२३ ①②③ Ⅳ ½", "a1b22c333d4444",
    "cafe\u0301 vs caf\u00e9", "A\u030a \u00c5 \u212b", "\u1112\u1161\u11ab\u1100\u1173\u11af vs 한글", "q\u0323\u0307 q\u0307\u0323", "\u0344 \u0958 \u2126",
    "ﬁ ﬂ ﬀ ligatures", "ẞ ß SS", "İ i ı I", "ǅ ǆ Ǆ", "ά ά", "𝒜𝓫𝕔 math letters", "𐐷 𠮷 𝄞 🀄", "a\u0300\u0301\u0302\u0303\u0304 zalgo",
    "👩‍👩‍👧‍👦👍🏿🏴󠁧󠁢󠁥󠁮󠁧󠁿🇵🇹🇵", "e\u20e3 1️⃣ ❤︎ ❤️", "क्षि ज्ञ", "กำ ก็", "العربيّة مَرْحَبًا", "שָׁלוֹם", "עברית and العربية mixed 123",
    "!!!???...---===", "foo.bar(baz)[qux]{quux}", "a->b::c<d>e", "/* comment */ // line", "\\n is not \n", "C:\\path\\to", "$100 €50 ¥3", "@user #tag",
    "<|im_start|>", "<|im_end|>user\n", "<|eot_id|>", "<s>", "</s>", "<unk>", "<0x41>", "<tool_call>", "</think>", "▁", "▁▁ a▁b", "Ġ Ċ", "[INST] x [/INST]",
    "x" * 300, "ab" * 200, " " * 50, "\n" * 20, "=" * 120, "長" * 40, "é" * 33,
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
]

PIECES = [
    "Hello!", "What is the weather in Paris?", "Please summarise the text below.", "ok", "Yes — exactly.", "", " ", "  spaced  ", "\nnew line first",
    "ends with newlines\n\n", "Two\nlines", "\ttab", "Größe über alles", "¿Qué tal?", "你好，世界", "こんにちは、元気？", "안녕하세요", "مرحبا بالعالم", "שלום",
    "नमस्ते", "Привет, мир", "👍🏽 great 🎉", "cafe\u0301", "x = {'a': [1, 2.5, None]}", "{\"a\": 1}", "{{ not jinja }} {% raw %}", "C:\\dir\\file",
    "\"quoted\" and 'single'", "a\u00a0b\u2003c", "&lt;tag&gt; <b>bold</b>", "1, 22, 333 and 4444", "```python\nprint('hi')\n```", "\u200bzero width", "🏴󠁧󠁢󠁥󠁮󠁧󠁿",
]

TOOLS = [
    {"name": "search", "description": "Search the knowledge base.", "parameters": {"type": "object", "properties": {
        "query": {"type": "string", "description": "What to look for."}, "limit": {"type": "integer", "default": 3}}, "required": ["query"]}},
    {"name": "get_weather", "description": "Current weather:\n  for a place.", "parameters": {"type": "object", "properties": {
        "place": {"type": "string", "description": "City, e.g. \"São Paulo\" or 東京"},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}}, "required": ["place", "unit"]}},
    {"name": "run", "description": "Runs code; returns what it prints.", "parameters": {"type": "object", "properties": {
        "code": {"type": "string"}, "timeout": {"type": "number", "minimum": 0.5, "maximum": 120},
        "env": {"type": "object", "additionalProperties": {"type": "string"}},
        "args": {"type": "array", "items": {"type": ["integer", "string"]}, "maxItems": 3}, "trace": {"type": "boolean", "default": False}}}},
    {"name": "ping", "description": "", "parameters": {"type": "object", "properties": {}}},
    {"name": "déjà_vu", "description": "Name and text beyond ASCII: naïve café ☕ </tools> & <b>", "parameters": {"type": "object", "properties": {
        "größe": {"type": "number"}, "nested": {"type": "object", "properties": {"deep": {"type": "array", "items": {"type": "array", "items": {"type": "boolean"}}}}}}}},
]

ARGUMENTS = [
    {"query": "population of Lisbon", "limit": 3}, {"place": "東京", "unit": "celsius"}, {}, {"code": "print(\"hi\")\n\tx = '\\\\'", "timeout": 2.5},
    {"nested": {"deep": [[True, False], []]}, "none": None}, {"text": "naïve \"café\" ☕ \u2028 \u0007", "n": -17}, {"a": [1, 2, {"b": "c"}], "e": []},
    {"big": 123456789012, "small": 0.001, "neg": -0.5},
]

RESULTS = ["12 °C, light rain", "{\"rows\": [[1, 2], [3, 4]]}", "", "Error: no such file\n  at line 3", "結果は三件です。", "  padded result \n", "ok 👍"]


def training_lines() -> list[str]:
    """The sentences, and seeded mixtures of their words, so that merges reach beyond single lines."""
    random = np.random.default_rng(7)
    words = [word for sentence in SENTENCES for word in sentence.split()]
    mixtures = [" ".join(random.choice(words, 12)) for _ in range(400)]
    return SENTENCES * 20 + mixtures


def plain_strings() -> list[str]:
    """Hard strings, the sentences, and random mixtures of characters of many kinds."""
    random = np.random.default_rng(11)
    alphabet = list("abcXYZ 019.,'\n\t-_ éßñ") + list("你好日本語한국어العربي🎉👍🏽\u0301\u200d\u00a0½²") + ["  ", "\r\n", "'s", "'LL"]
    mixtures = ["".join(random.choice(alphabet, int(random.integers(1, 40)))) for _ in range(80)]
    return HARD + SENTENCES + mixtures
