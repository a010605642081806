"""The planted half of the sample crawl: pages whose fate is known beforehand, so that a report can be held to it.

Near-duplicates are real pages edited until the Jaccard similarity of their word 5-grams meets a target; what was
met, not what was asked for, stands in the facts. Opt-outs, leaks, personal data and broken transports are put on real
prose ("carriers", each used once), so that nothing but the planted reason can cost them their place. Addresses,
numbers and names come from ranges reserved for examples (RFC 2606, 5737 and 3849; +1 202-555-01xx; +44 20 7946 0xxx;
the IBANs and the card number that banks print in their own examples).

Not covered: what a particular recipe does with a case. The facts state what is in the page, not who must drop it.
"""

from __future__ import annotations

import base64
import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

Block = tuple[str, str]  # (tag, text): h2, h3, p, pre, li, dt, dd, link; raw is markup that says nothing


@dataclass(frozen=True)
class Page:
    """What a page says, apart from how it looks and travels. ``code`` in a block is marked by double backticks."""

    uri: str
    title: str
    blocks: tuple[Block, ...]
    crumbs: tuple[str, ...] = ()
    lang: str = "en"

    @property
    def text(self) -> str:
        """The main text: heading and blocks, one per line (`pre` has more), without markup or navigation."""
        return "\n".join([self.title, *(plain(text) for tag, text in self.blocks if tag != "raw")])


@dataclass(frozen=True)
class Capture:
    """One response of the crawl. `body` stands in for a page that is no HTML; `transfer` is applied left to right."""

    page: Page
    kind: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    status: str = "200 OK"
    headers: tuple[tuple[str, str], ...] = ()
    head: str = ""
    encoding: str = "utf-8"
    in_header: str | None = "utf-8"
    in_meta: str | None = "utf-8"
    transfer: tuple[str, ...] = ()
    body: bytes | None = None
    media: str = "text/html"
    days_late: int = 0


def plain(text: str) -> str:
    """A block's text without the marks around code."""
    return re.sub(r"``(.+?)``", r"\1", text)


def word_ngrams(text: str, n: int = 5) -> set[tuple[str, ...]]:
    """Word n-grams, blind to case, diacritics, punctuation and which digit; a word is a run of letters and digits."""
    bare = "".join(char for char in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(char))
    words = re.findall(r"[^\W_]+", re.sub(r"\d", "0", bare))
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def jaccard(a: str, b: str, n: int = 5) -> float:
    """Shared over all distinct word n-grams of two texts; 0 where neither has one."""
    left, right = word_ngrams(a, n), word_ngrams(b, n)
    return len(left & right) / max(1, len(left | right))


MIRROR = "https://mirror.example"
SPAM = "https://spam.example"
Case = tuple[str, tuple[str, ...], dict[str, Any], dict[str, Any]]
LEVELS = (0.5, 0.6, 0.75, 0.85, 0.95)
PER_LEVEL = 4
ORIGINALS = len(LEVELS) * PER_LEVEL + 5
SWAPS = (
    "usually carefully sometimes another earlier simple given whole common recent local further useful plain general "
    "careful minor certain regular later possible single wider older private sample shared typical normal first"
)


def planted(pages: Sequence[Page]) -> tuple[list[Capture], list[Page], list[Page]]:
    """(planted captures, the originals that some were edited from, the pages left over).

    Originals must be written too; carriers are taken out of `pages`. Raises ValueError where `pages` has too little
    prose to carry the cases.
    """
    prose = sorted(_prose(pages), key=lambda page: (-len(page.text), page.uri))
    if len(prose) < ORIGINALS + len(CARRIED):
        need = ORIGINALS + len(CARRIED)
        raise ValueError(f"{len(prose)} of {len(pages)} pages are prose, {need} needed; are Python's sources there?")
    originals, carriers = prose[:ORIGINALS], prose[ORIGINALS : ORIGINALS + len(CARRIED)]
    captures = [
        *_near_duplicates(originals[:-5]),
        *_chain(originals[-5]),
        *_exact_duplicates(originals[-4:]),
        *_poor(pages),
        *_languages(),
        *(_carry(page, *case) for page, case in zip(carriers, CARRIED, strict=True)),
        *_other_responses(),
    ]
    used = {page.uri for page in originals + carriers}
    return captures, originals, [page for page in pages if page.uri not in used]


def _prose(pages: Sequence[Page]) -> list[Page]:
    """Pages that read well and share less than 20 % of their 5-grams with all others together."""
    grams = {page.uri: word_ngrams(page.text) for page in pages}
    seen = Counter(gram for each in grams.values() for gram in each)
    return [page for page in pages if _is_prose(page) and _own_share(grams[page.uri], seen) > 0.8]


def _is_prose(page: Page) -> bool:
    """Well clear of the limits of Gopher, C4 and FineWeb, so that the planted trouble is a page's only one.

    No list either: extractors disagree on which lists are navigation, and the facts are about the text with them.
    """
    text = page.text
    words, lines = text.split(), text.split("\n")
    return (
        all(tag != "li" for tag, _ in page.blocks)
        and 120 <= len(words) <= 1500
        and len(words) >= 8 * len(lines)
        and sum(line.endswith((".", "!", "?")) for line in lines) > 0.4 * len(lines)
        and len(re.findall(r"[.!?](?=\s|$)", text)) >= 8
        and len(set(lines)) == len(lines)
        and len(word_ngrams(text)) > 0.95 * len(words)
        and sum(len(line) <= 30 for line in lines) < 0.5 * len(lines)
        and sum(any(map(str.isalpha, word)) for word in words) > 0.88 * len(words)
        and not re.search(r"[{}@#]|\.\.\.|…|javascript|lorem|cookie|terms of use", text, re.IGNORECASE)
    )


def _own_share(grams: set[tuple[str, ...]], seen: Counter[tuple[str, ...]]) -> float:
    return sum(seen[gram] == 1 for gram in grams) / len(grams)


def _order(salt: str, n: int) -> list[int]:
    """A permutation of 0..n-1 that depends on the salt only."""
    return sorted(range(n), key=lambda i: hashlib.sha1(f"{salt}:{i}".encode()).digest())


def _swap_words(page: Page, count: int, salt: str) -> Page:
    """Another word in the place of `count` words of the paragraphs; punctuation after a word stays."""
    swaps = SWAPS.split()
    prose = [tag in ("p", "dd") for tag, _ in page.blocks]
    words = [text.split(" ") if is_prose else [text] for is_prose, (_, text) in zip(prose, page.blocks, strict=True)]
    places = [(block, i) for block, is_prose in enumerate(prose) if is_prose for i in range(len(words[block]))]
    for place in _order(salt, len(places))[:count]:
        block, i = places[place]
        bare = words[block][i].rstrip(".,:;!?)'\"")
        words[block][i] = swaps[place % len(swaps)] + words[block][i][len(bare) :]
    return replace(page, blocks=tuple((tag, " ".join(words[i])) for i, (tag, _) in enumerate(page.blocks)))


def _edit(page: Page, target: float, uri: str, *, cut: bool) -> Page:
    """The page at another address, with paragraphs cut (if asked for) and words swapped until Jaccard <= target."""
    edited = replace(page, uri=uri)
    while cut:
        last = max(i for i, (tag, _) in enumerate(edited.blocks) if tag in ("p", "dd"))
        shorter = replace(edited, blocks=edited.blocks[:last] + edited.blocks[last + 1 :])
        if jaccard(page.text, shorter.text) < (1 + target) / 2:
            break
        edited = shorter
    low, high = 0, len(page.text.split())
    while low < high:
        middle = (low + high) // 2
        if jaccard(page.text, _swap_words(edited, middle, uri).text) > target:
            low = middle + 1
        else:
            high = middle
    return _swap_words(edited, low, uri)


def _near_duplicates(originals: Sequence[Page]) -> list[Capture]:
    """`PER_LEVEL` pages per level of `LEVELS`; every other one has paragraphs cut as well as words swapped."""
    captures = []
    for i, page in enumerate(originals):
        target = LEVELS[i % len(LEVELS)]
        edited = _edit(page, target, f"{MIRROR}/copies/{i:02d}.html", cut=i // len(LEVELS) % 2 == 1)
        met = {"target": target, "jaccard": jaccard(page.text, edited.text)}
        facts = {"original": page.uri, "original_text": page.text, **met}
        captures.append(Capture(edited, "near_duplicate", facts))
    return captures


def _chain(page: Page) -> list[Capture]:
    """b is like the original and c is like b, but c is not like the original: a trap for connected components."""
    b = _edit(page, 0.75, f"{MIRROR}/chain/b.html", cut=False)
    c = _edit(b, 0.75, f"{MIRROR}/chain/c.html", cut=False)
    captures = []
    for name, copy, parent in (("b", b, page), ("c", c, b)):
        facts = {"link": name, "original": parent.uri, "original_text": parent.text, "first": page.uri}
        met = {"jaccard": jaccard(parent.text, copy.text), "jaccard_to_first": jaccard(page.text, copy.text)}
        captures.append(Capture(copy, "near_duplicate_chain", facts | met))
    return captures


def _exact_duplicates(originals: Sequence[Page]) -> list[Capture]:
    """The same text in another layout, the same bytes at another address, and two later visits to one address."""
    captures = []
    for page, way in zip(originals, ("other_layout", "other_address", "same_address", "same_address"), strict=True):
        uri = {"other_layout": f"{MIRROR}/copies/same.html", "other_address": page.uri + "?utm_source=feed"}
        copy = replace(page, uri=uri.get(way, page.uri))
        facts = {"way": way, "original": page.uri, "original_text": page.text}
        captures.append(Capture(copy, "exact_duplicate", facts, days_late=20))
    return captures


def _carry(page: Page, kind: str, said: Sequence[str], how: Mapping[str, Any], facts: Mapping[str, Any]) -> Capture:
    """Real prose at an address of its own, with paragraphs of ours in the middle and a way of serving it."""
    middle = len(page.blocks) // 2
    ours = (("raw" if text == ALERT else "pre" if "\n" in text else "p", text) for text in said)
    blocks = (*page.blocks[:middle], *ours, *page.blocks[middle:])
    title = how.get("title", page.title)
    carried = replace(page, uri=re.sub("//[^/]+", "//blog.example", page.uri), title=title, blocks=blocks)
    return Capture(carried, kind, facts, **{key: how[key] for key in how if key != "title"})


def _signal(kind: str, place: str, name: str, value: str) -> Case:
    how = {"head": f'<meta name="{name}" content="{value}">'} if place == "meta" else {"headers": ((name, value),)}
    return kind, (), how, {"place": place, "signal": name, "value": value}


LEAK = (
    "Mira bakes 6 trays of rolls with 14 rolls on each tray. She gives 9 rolls to each of her 4 neighbours and packs "
    "the remaining rolls into bags of 8. How many full bags can Mira pack?"
)
ALERT = "<script>alert(1)</script>"
_MARKUP = f'Anyone may write {ALERT} or "><img src=x onerror=alert(1)> here, and readers must see it as text.'
_PERSONAL = {
    "email": ("anna.keller@example.org", "press+night@mail.example.com"),
    "phone": ("+1 202-555-0143", "+44 20 7946 0958"),
    "iban": ("DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432"),
    "card": ("4111111111111111", "4111 1111 1111 1111"),
    "ip": ("203.0.113.57", "2001:db8:85a3::8a2e:370:7334"),
}
_DECOYS = ("DE89 3704 0044 0532 0130 01", "4111111111111112", "999.0.113.57", "release 3.11.2", "name@localhost")


def _personal(i: int) -> Case:
    value = {kind: values[i] for kind, values in _PERSONAL.items()}
    contact = f"Questions go to {value['email']} or, by day, to {value['phone']}; ask for the evening desk."
    money = f"Fees are paid to the account {value['iban']} or with the card {value['card']} on the day itself."
    network = f"The last visitor came from {value['ip']} and stayed for an hour, which the log shows in full."
    decoys = f"None of these belongs to anyone: {', '.join(_DECOYS)}; they only look as if they did."
    facts = {"found": [{"type": kind, "value": each} for kind, each in value.items()], "decoys": list(_DECOYS)}
    return "personal_data", (contact, money, network, decoys), {}, facts


_LOREM = (
    "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore et dolore "
    "magna aliqua. Ut enim ad minim veniam, quis nostrud exercitation ullamco laboris nisi ut aliquip ex ea commodo "
    "consequat. Duis aute irure dolor in reprehenderit in voluptate velit esse cillum dolore eu fugiat nulla pariatur."
)
_SCRIPTED = (
    "function total(rows) {\n  let sum = 0;\n  for (const row of rows) { sum += row.price; }\n  return sum;\n}",
    '@media print {\n  .card { display: none; }\n}\n{\n  "name": "card",\n  "size": {"width": 2}\n}',
)
_OFFER = "Order your watch today and pay nothing until the end of the year."
#: (kind, paragraphs, how it is served, facts) of the cases that are put on a page of real prose each.
CARRIED: tuple[Case, ...] = (
    _signal("opt_out", "meta", "robots", "noindex, nofollow"),
    _signal("opt_out", "meta", "robots", "noai, noimageai"),
    _signal("opt_out", "meta", "tdm-reservation", "1"),
    _signal("opt_out", "header", "X-Robots-Tag", "noindex"),
    _signal("opt_out", "header", "X-Robots-Tag", "noai"),
    _signal("opt_out", "header", "tdm-reservation", "1"),
    _signal("opt_out", "header", "Content-Usage", "train-ai=n"),
    _signal("opt_in", "meta", "robots", "index, follow"),
    _signal("opt_in", "header", "tdm-reservation", "0"),
    _signal("opt_in", "header", "Content-Usage", "train-ai=y"),
    _personal(0),
    _personal(1),
    ("benchmark_leak", (LEAK,), {}, {"prompt": LEAK, "answer": "6", "form": "verbatim"}),
    ("benchmark_leak", (LEAK.upper().replace(". ", " - "),), {}, {"prompt": LEAK, "answer": "6", "form": "respelled"}),
    ("content_encoding", (), {"transfer": ("gzip",)}, {"transfer": ["gzip"]}),
    ("content_encoding", (), {"transfer": ("br",)}, {"transfer": ["br"]}),
    ("content_encoding", (), {"transfer": ("chunked",)}, {"transfer": ["chunked"]}),
    ("content_encoding", (), {"transfer": ("gzip", "chunked")}, {"transfer": ["gzip", "chunked"]}),
    ("no_charset", ("The café’s menu said “naïve” in plain UTF-8.",), {"in_header": None, "in_meta": None}, {}),
    ("nul_bytes", ("The tape stops here\0 and goes on\0 after two empty bytes.",), {}, {"nuls": 2}),
    ("script", (ALERT, _MARKUP), {"title": f"{ALERT} Release notes", "head": ALERT}, {"script": ALERT}),
    *(("lorem_ipsum", (_LOREM,) * times, {}, {"times": times}) for times in (1, 3)),
    *(("curly_brackets", (code,), {}, {"brackets": code.count("{")}) for code in _SCRIPTED),
    *(("spam", (_OFFER,) * n, {}, {"way": "repeated_lines", "line": _OFFER, "times": n}) for n in (30, 60)),
)


def _poor(pages: Sequence[Page]) -> list[Capture]:
    """Pages that say little or nothing: spam, navigation, stubs, and lists of words or of other pages."""
    titles = [plain(page.title) for page in pages if len(page.title) > 3]
    teasers = [" ".join(page.text.split()[:9]) + " ..." for page in pages if len(page.text) > 400]
    captures: list[Capture] = []

    def add(kind: str, title: str, blocks: Sequence[Block], host: str = MIRROR, **facts: Any) -> None:
        path = re.sub(r"\W+", "-", f"{kind} {len(captures)}")
        captures.append(Capture(Page(f"{host}/{path}.html", title, tuple(blocks)), kind, facts))

    for goods in ("watches", "mattresses"):
        words = f"cheap {goods} buy {goods} online best {goods} discount {goods} {goods} sale".split() * 40
        stuffed = [("p", " ".join(words) + ".")]
        add("spam", f"Cheap {goods}", stuffed, SPAM, way="keyword_stuffing", keyword=goods, times=words.count(goods))
        phrase = f"the very best {goods} in the whole town"
        repeated = [("p", " ".join(f"{word} {phrase}" for word in SWAPS.split()) + ".")]
        add("spam", f"Best {goods}", repeated, SPAM, way="repeated_ngrams", phrase=phrase, times=30)
    for title in ("Sign in", "Archive", "Search"):
        add("navigation_only", title, [])
    for said in ("Coming soon.", "Thank you! Your message was sent.", "No entries yet.", "This page has moved."):
        add("very_short", "Notice", [("p", said)])
    for product in ("dashboard", "map"):
        line = f"JavaScript is disabled. Please enable JavaScript in your browser to use the {product}."
        empty = [("raw", '<div id="app"></div><script src="/app.js"></script>'), ("p", line)]
        add("javascript_required", product.title(), empty, line=line)
    for start in (0, 1):
        tags = ["#" + re.sub(r":.*|\W", "", title) for title in titles[start:400:2]]
        lines = [("p", " ".join(tags[i : i + 10])) for i in range(0, len(tags), 10)]
        add("hashes", "Trending", lines, SPAM, hashes=len(tags))
        add("ellipses", "Latest posts", [("p", teaser) for teaser in teasers[start:80:2]], lines=40)
        add("link_list", "All pages", [("link", title) for title in titles[start:400:2]], links=200)
    return captures


_STORIES = {
    "de": (
        "Die alte Mühle",
        "Am Rand unseres Dorfes steht seit mehr als zweihundert Jahren eine kleine Wassermühle. Früher brachten die "
        "Bauern aus der ganzen Umgebung ihr Getreide hierher, und der Müller wusste von jedem Sack, von welchem "
        "Feld er kam. Heute mahlt die Mühle nur noch am Samstag, wenn der Verein die Türen öffnet und Besucher "
        "durch die engen Räume führt.",
        "Das Rad dreht sich langsam, aber die Kraft reicht aus, um zwei schwere Steine zu bewegen. Zuerst wird das "
        "Korn gereinigt: Ein Sieb trennt Stroh und Staub von den guten Körnern. Danach läuft es durch einen "
        "hölzernen Trichter zwischen die Steine. Wer die Hand darunter hält, spürt das warme, weiche Mehl und "
        "riecht, wie frisch es ist.",
        "Im letzten Winter mussten wir eine Welle ersetzen, weil das alte Holz gebrochen war. Ein Zimmermann aus "
        "dem Nachbarort hat sie aus einer einzigen Eiche gearbeitet, und mehr als dreißig Leute haben beim Einbau "
        "geholfen. Seitdem läuft das Rad leiser als zuvor, und die Kinder sagen, die Mühle singe jetzt ein anderes "
        "Lied.",
    ),
    "fr": (
        "La boulangerie de la place",
        "Chaque matin, bien avant le lever du soleil, la lumière s'allume dans la petite boulangerie de la place. "
        "Jeanne pétrit la pâte depuis trente ans, et ses gestes sont si sûrs qu'elle pourrait travailler les yeux "
        "fermés. Elle choisit ses farines chez un meunier de la vallée, car elle veut savoir d'où vient chaque sac.",
        "La première fournée sort à six heures. Les ouvriers du chantier voisin arrivent les premiers, puis les "
        "écoliers, enfin les retraités qui prennent leur temps et discutent de la météo devant le comptoir. Jeanne "
        "connaît le nom de presque tous ses clients, et elle garde toujours un pain de côté pour ceux qui arrivent "
        "en retard.",
        "L'année dernière, le vieux four est tombé en panne en plein hiver. Tout le quartier s'est réuni pour "
        "trouver une solution : un maçon a refait la voûte, un électricien a changé les câbles et le maire a prêté "
        "une salle pour cuire les gâteaux de Noël. Depuis ce jour, une plaque de cuivre au-dessus de la porte "
        "remercie ceux qui ont aidé.",
    ),
    "es": (
        "La biblioteca sobre ruedas",
        "En las montañas del norte, donde los pueblos quedan lejos unos de otros, una biblioteca viaja sobre cuatro "
        "ruedas. La conduce Marta, que dejó su empleo en la ciudad para llevar novelas, cuentos y manuales a quien "
        "quiera leerlos. Cada martes sale con el depósito lleno y vuelve el jueves con las estanterías revueltas y "
        "una lista de encargos.",
        "Los niños la esperan en la plaza y reconocen el ruido del motor desde muy lejos. Algunos devuelven los "
        "libros con flores secas entre las páginas; otros piden siempre la misma historia de piratas. Los mayores "
        "prefieren las novelas de misterio, y casi todos se quedan un rato para contar cómo ha ido la semana.",
        "El invierno pasado la nieve cortó la carretera durante doce días. Marta no quiso rendirse: cargó dos "
        "mochilas, se puso las botas y subió a pie hasta la última aldea con ayuda de un pastor. Cuando llegó, la "
        "chimenea estaba encendida y había sopa para todos. Desde entonces, los vecinos limpian el camino por "
        "turnos.",
    ),
    "ru": (
        "Станция в степи",
        "Маленькая станция стоит посреди степи, и ближайший город виден отсюда только ночью, когда над горизонтом "
        "загораются огни. Поезда останавливаются здесь всего на две минуты, но этого хватает, чтобы передать почту, "
        "взять воду и обменяться новостями. Начальник станции служит на этом месте уже двадцать семь лет и помнит "
        "каждую зиму.",
        "Самой трудной была та, когда метель не утихала целую неделю. Скорый поезд застрял в снегу недалеко от "
        "моста, и пассажиров пришлось выводить по одному, держась за верёвку. Жители соседней деревни принесли "
        "одеяла, хлеб и горячий чай, а в зале ожидания дети устроили настоящий концерт. Никто не жаловался, и к "
        "утру все знали друг друга по имени.",
        "Весной вокруг станции цветут тюльпаны, и тогда сюда приезжают художники. Они ставят мольберты прямо у "
        "дороги и спорят о том, какого цвета бывает степь на рассвете. Начальник угощает их мёдом и рассказывает "
        "истории, которых хватило бы на толстую книгу. Когда его спрашивают, не скучно ли ему здесь одному, он "
        "только улыбается и отвечает, что каждый поезд привозит что-нибудь новое, а каждую ночь над крышей видно "
        "столько звёзд, что считать их не надоест.",
    ),
    "zh": (
        "东门外的书店",
        "老城的东门外有一家很小的书店，门口挂着一盏旧灯笼。店主姓林，今年七十多岁，年轻的时候在印刷厂工作，认识城"
        "里几乎所有的排字工人。退休以后，他把家里的书搬到这间屋子里，一本一本地擦干净，再按照自己的习惯摆上书架。",
        "来这里的客人各不相同。早上常常是学生，他们坐在窗边的木凳上看小说，一直看到上课铃响；下午多半是退休的老人"
        "，喜欢讨论历史和棋谱；到了晚上，下班的年轻人会进来躲雨，顺便买一本诗集带回家。林先生从来不催客人，他说书"
        "和茶一样，需要慢慢品味。",
        "去年夏天下了一场大雨，河水漫进了街道，书店的地板泡在水里。邻居们听说以后，连夜赶来帮忙，把几千本书搬到二"
        "楼的走廊上晾干。有人带来风扇，有人煮了姜汤，还有一位老师教孩子们怎样修补破损的书页。一个星期以后，书店重"
        "新开门，墙上多了一张照片，照片里每个人的裤脚都沾着泥，可是大家都在笑。",
    ),
    "ja": (
        "岬の灯台",
        "岬の先に、白い小さな灯台が立っています。今では機械が自動で光を動かしていますが、三十年前までは灯台守の家"
        "族がここで暮らし、毎晩交代で明かりを見守っていました。港の人々は、霧の深い夜でもその光が消えたことは一度"
        "もなかったと話します。",
        "春になると、子どもたちは先生といっしょに坂道を登り、灯台の中を見学します。らせん階段は百二十段もあり、途"
        "中の窓からは漁船や遠くの島が見えます。頂上に着くと、案内役の山本さんが古い日誌を開き、嵐の夜に何が起こっ"
        "たのかをゆっくり語ってくれます。",
        "去年の秋、台風で屋根の一部が壊れました。修理にはたくさんの費用がかかるため、町では灯台を閉めるという意見"
        "も出ました。しかし、漁師や商店の人たちが少しずつお金を出し合い、大工の組合は無料で木材を運びました。冬が"
        "来る前に屋根は直り、最初に光がともった夜には、港じゅうの船が汽笛を鳴らしたそうです。",
    ),
}
#: (language, true encoding, charset in the HTTP header, charset in a meta element, what is wrong with them)
CHARSETS = (
    ("ru", "windows-1251", "windows-1251", None, "right"),
    ("ru", "windows-1251", None, None, "missing"),
    ("ru", "windows-1251", "iso-8859-1", "iso-8859-1", "wrong"),
    ("ru", "windows-1251", "windows-1251", "utf-8", "header_over_meta"),
    ("zh", "gbk", None, "gb2312", "right"),
    ("zh", "gbk", None, None, "missing"),
    ("zh", "gbk", "utf-8", None, "wrong"),
    ("ja", "euc-jp", None, "euc-jp", "right"),
    ("ja", "euc-jp", None, None, "missing"),
    ("ja", "euc-jp", "shift_jis", None, "wrong"),
    ("fr", "iso-8859-1", "iso-8859-1", None, "right"),
    ("de", "utf-8", "iso-8859-1", None, "wrong"),
    ("es", "utf-16", None, None, "byte_order_mark"),
)


def _languages() -> list[Capture]:
    """One UTF-8 page per language, and the same texts again in other encodings, well and badly declared."""
    captures = []
    for lang, (title, *paragraphs) in _STORIES.items():
        page = Page(f"https://news.example/{lang}/", title, tuple(("p", text) for text in paragraphs), lang=lang)
        captures.append(Capture(page, "language", {"lang": lang}))
    pages = {capture.page.lang: capture.page for capture in captures}
    for i, (lang, encoding, in_header, in_meta, way) in enumerate(CHARSETS):
        page = replace(pages[lang], uri=f"{pages[lang].uri}{i:02d}.html")
        facts = {"lang": lang, "way": way, "encoding": encoding, "in_header": in_header, "in_meta": in_meta}
        capture = Capture(page, "charset", facts | {"same_text_as": pages[lang].uri})
        captures.append(replace(capture, encoding=encoding, in_header=in_header, in_meta=in_meta))
    return captures


_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTj2FAAAAABJRU5ErkJggg=="
_PDF = """\
%PDF-1.4
1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj
2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj
3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 40]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>endobj
4 0 obj<</Length 38>>stream
BT /F1 18 Tf 9 9 Td (A handbook) Tj ET
endstreamendobj
5 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj
xref
0 6
0000000000 65535 f 
0000000009 00000 n 
0000000052 00000 n 
0000000101 00000 n 
0000000210 00000 n 
0000000293 00000 n 
trailer<</Size 6/Root 1 0 R>>
startxref
354
%%EOF
"""


def _other_responses() -> list[Capture]:
    """What a crawl holds besides pages: an error, a redirect, a PDF and an image."""
    gone = Page(f"{MIRROR}/gone.html", "Not found", (("p", "There is no page at this address."),))
    moved = Page(f"{MIRROR}/old.html", "Moved", (("p", "This page lives elsewhere now."),))
    book, dot = Page(f"{MIRROR}/handbook.pdf", "", ()), Page(f"{MIRROR}/dot.png", "", ())
    there = f"{MIRROR}/copies/same.html"
    redirect = {"status": 301, "location": there}
    return [
        Capture(gone, "not_found", {"status": 404}, "404 Not Found"),
        Capture(moved, "redirect", redirect, "301 Moved Permanently", (("Location", there),)),
        Capture(book, "pdf", body=_PDF.encode(), media="application/pdf"),
        Capture(dot, "image", body=base64.b64decode(_PNG), media="image/png"),
    ]
