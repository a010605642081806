"""Texts and files that the planted cases are made of, as literals.

One short story per language, written for this crawl, with the encodings in which it is served again; the words that
edited copies get in the place of their own; and a small PDF and PNG. The law: every text can be written in every
encoding listed for its language.

Not covered: other languages than these six, and encodings that nobody serves any more.
"""

from __future__ import annotations

SWAPS = (
    "usually carefully sometimes another earlier simple given whole common recent local further useful plain general "
    "careful minor certain regular later possible single wider older private sample shared typical normal first"
)
STORIES = {
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
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTj2FAAAAABJRU5ErkJggg=="
PDF = """\
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
