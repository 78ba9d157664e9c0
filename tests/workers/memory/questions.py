"""What somebody said to an assistant, and the questions that must find it again, by their kind.

Two thirds of the questions share words with the answer only by their stems, by their spelling or by a part.
"""

from __future__ import annotations

import random
from typing import Final

Fact = tuple[str, str, str]
"""The message, the answer, and the questions: a line each, `kind: question`."""

FACTS: Final[tuple[Fact, ...]] = (
    (
        "My grandmother's piano needs to be tuned before Christmas",
        "I wrote down that the piano tuner should come in early December.",
        """english: when does the piano have to be tuned?
        english: who should come in December?
        english: whose piano was it that needs tuning
        plural: pianos of grandmothers
        typo: grandmothr piano""",
    ),
    (
        "The landlord raised our rent to 1480 euros starting in May",
        "That is an increase of six percent; the legal limit is twenty in three years.",
        """english: how much is our rent?
        english: from when on do we pay the raised rent
        english: by how many percent did the landlord increase it?
        plural: landlords raising rents
        typo: landlrod rent
        ident: 1480""",
    ),
    (
        "I lent my tent to Marcus for the festival at the lake",
        "Ask Marcus to return the tent by the end of the month.",
        """english: who has my tent?
        english: to whom did I lend the tent for the festival?
        english: where was the festival
        plural: tents
        typo: festval tent""",
    ),
    (
        "Which fertilizer suits tomatoes on a shady balcony?",
        "Use a potassium rich liquid fertilizer every ten days, and pick cherry varieties.",
        """english: how often should I fertilize my tomatoes?
        english: what kinds of tomato grow on a shady balcony?
        plural: balconies with shade
        typo: fertiliser for tomatos
        typo: balkony tomatoes""",
    ),
    (
        "My blood pressure was 142 over 91 this morning",
        "Measure it again in the evening, and see a doctor if it stays above 140.",
        """english: what was my blood pressure?
        english: should I see a doctor about the pressure?
        plural: measurements of blood pressures
        typo: blod presure
        ident: 142""",
    ),
    (
        "I am learning Portuguese because we are moving to Lisbon next spring",
        "Start with the pronunciation of nasal vowels and twenty minutes a day.",
        """english: which language am I learning?
        english: why do I learn Portuguese?
        english: when are we moving to Lisbon
        typo: Portugese vowels
        plural: languages: Portuguese lessons, minutes per day""",
    ),
    (
        "The boiler in the cellar shows fault E119 and stops heating",
        "E119 means that the water pressure is low: refill to 1.5 bar.",
        """english: what does the boiler's error in the cellar mean?
        english: why has the heating stopped?
        ident: E119
        ident: 1.5 bar
        plural: faults of boilers
        typo: boyler celler""",
    ),
    (
        "Please draft a complaint about the scratched wardrobe from Nordholm",
        "Here is the letter; it asks for a replacement of the wardrobe within two weeks.",
        """english: what did I complain about to Nordholm?
        english: how long do they have to replace the wardrobe?
        typo: wardobe complaint
        plural: scratches on wardrobes""",
    ),
    (
        "Our twins start school on the 4th and need orange backpacks",
        "Orange backpacks with reflectors are in stock at the shop in Mill Lane.",
        """english: what colour should the twins' backpacks be?
        english: when do the twins start school?
        english: which shop has backpacks in stock?
        plural: reflector backpack
        typo: bakcpacks twins""",
    ),
    (
        "I sold the motorbike to a collector in Ghent for a good price",
        "Remember to deregister it and to cancel the motorbike insurance.",
        """english: who bought my motorbike, a collector?
        english: where does the collector live that I sold it to?
        english: what must be cancelled after the sale of the motorbike
        plural: collectors of motorbikes
        typo: motobike colector""",
    ),
    (
        "Choir practice moved from Tuesday to Thursday at St. Anne's",
        "Changed: choir on Thursdays at 19:45 in St. Anne's parish hall.",
        """english: on what day is choir practice?
        english: at what time does the choir practise?
        english: where does the choir meet
        ident: 19:45
        plural: choirs practising
        typo: qhoir practise thursday""",
    ),
    (
        "My username at the library is reader.0815-quill and I forgot the pin",
        "You can have a new one sent at the library's front desk.",
        """english: what is my username at the library?
        ident: reader.0815-quill
        ident: 0815
        typo: libary username
        plural: libraries usernames""",
    ),
    (
        "panic: runtime error: index out of range [5] with length 3",
        "The loop runs to len(items)+1; use for i := range items.",
        """code: panic: runtime error: index out of range
        code: index out of range [5]
        code: len(items)+1
        code: for i := range items
        english: why does the program panic with an index error?""",
    ),
    (
        "parseUserAgent() returns undefined for headlessChrome",
        "Lowercase the string first; the RegExp in parseUserAgent lacks the i flag.",
        """code: parseUserAgent
        code: user agent parse undefined
        code: headless chrome
        code: RegExp i flag
        english: what is missing from the regular expression of the user agent parser?""",
    ),
    (
        "git rebase --onto main feature~3 feature left me with conflicts in Cargo.lock",
        "Take theirs and run cargo update; then git rebase --continue.",
        """code: git rebase --onto
        code: Cargo.lock conflicts
        code: feature~3
        english: how did I resolve the conflict after the rebase?
        plural: lock conflict""",
    ),
    (
        "The nightly build of libfoobar_v2 fails with LNK2019 unresolved external",
        "Link against ws2_32.lib, and export the symbol.",
        """code: LNK2019
        code: libfoobar_v2
        code: ws2_32.lib
        code: unresolved externals
        english: why is the nightly build failing?""",
    ),
    (
        "In Objective-C and C++ what is the cost of dynamic_cast?",
        "A dynamic_cast walks the type graph; prefer virtual methods.",
        """code: dynamic_cast
        code: C++ cast
        code: objective-c
        english: what costs does a dynamic cast have?""",
    ),
    (
        "ERR_TOO_MANY_REDIRECTS after enabling HTTPS behind the proxy",
        "Set X-Forwarded-Proto and trust the proxy, otherwise each request redirects again.",
        """code: ERR_TOO_MANY_REDIRECTS
        code: X-Forwarded-Proto
        code: forwarded proto header
        english: why are there too many redirects behind the proxy?
        typo: to many redirekts proxy""",
    ),
    (
        "Order PO-77/2031-B for Hallberg Ltd has not arrived",
        "The parcel JD014600003SE is held at customs in Malmo.",
        """ident: PO-77/2031-B
        ident: JD014600003SE
        ident: 2031-B
        english: where is the order for Hallberg held?
        english: which parcel did not arrive?
        plural: parcels at customs""",
    ),
    (
        "The meter reads 48,213.7 kWh today",
        "Noted, 48,213.7 kWh: that is 312 more than last month.",
        """ident: 48213.7
        ident: 48,213.7 kWh
        english: what does the meter read?
        typo: metre reading kwh""",
    ),
    (
        "我女儿对花生过敏,不能吃坚果",
        "记住了:购买零食时请检查配料表。",
        """asian: 花生过敏
        asian: 我女儿对什么过敏?
        asian: 坚果
        asian: 零食配料""",
    ),
    (
        "明天早上八点提醒我给牙医打电话",
        "好的,明天八点提醒您联系牙医诊所。",
        """asian: 牙医
        asian: 什么时候给牙医打电话
        asian: 诊所""",
    ),
    (
        "図書館で借りた本の返却期限はいつですか",
        "返却期限は来週の水曜日です。延長もできます。",
        """asian: 図書館の本
        asian: 返却期限
        asian: 本はいつ返却しますか?
        asian: 水曜日""",
    ),
    (
        "新しいカメラのレンズを選んでください",
        "風景には広角レンズがおすすめです。",
        """asian: カメラ
        asian: 広角レンズ
        asian: 風景のレンズはどれ?""",
    ),
    (
        "ฉันแพ้อาหารทะเลโดยเฉพาะกุ้ง",
        "รับทราบ จะไม่แนะนำเมนูที่มีกุ้งหรือปู",
        """asian: แพ้อาหารทะเล
        asian: กุ้ง
        asian: ฉันแพ้อะไร""",
    ),
    (
        "ช่วยจองโรงแรมที่เชียงใหม่สองคืน",
        "จองโรงแรมใกล้ประตูท่าแพเรียบร้อยแล้ว",
        """asian: โรงแรมเชียงใหม่
        asian: จองโรงแรม
        asian: ประตูท่าแพ""",
    ),
    (
        "La contraseña del wifi está debajo del teléfono",
        "Anotado: debajo del teléfono del salón.",
        """accent: contrasena wifi
        accent: ¿dónde está la contraseña?
        accent: telefono salon""",
    ),
    (
        "Die Schlüssel für das Gartenhäuschen hängen neben der Waschmaschine",
        "Gemerkt: der Schlüsselbund hängt neben der Waschmaschine.",
        """accent: Schlussel
        accent: Wo hängt der Schlüssel?
        accent: Gartenhaus
        accent: waschmaschinen""",
    ),
    (
        "Żółw mojej córki nazywa się Kleks i je sałatę",
        "Kleks to żółw, zapamiętałem.",
        """accent: zolw
        accent: salata
        accent: Kleks corka""",
    ),
    (
        "Le déménagement à Orléans coûtera 900 € avec le camion",
        "Réservez le camion de déménagement deux semaines avant.",
        """accent: demenagement orleans
        accent: combien coûte le déménagement ?
        accent: camions""",
    ),
    (
        "Моя собака боится салюта и прячется под кроватью",
        "Закройте шторы и включите спокойную музыку.",
        """accent: собаки боятся салютов
        accent: где прячется собака?
        accent: шторы""",
    ),
    (
        "We are having a baby 🍼 in June!",
        "Congratulations! 🎉 I will remind you of the hospital bag.",
        """emoji: 🍼
        emoji: 🎉
        english: when are we having the baby?
        english: of which bag did you want to remind us?""",
    ),
    (
        "Aunt Rosa's lasagne 🍝 uses béchamel instead of ricotta",
        "Noted: béchamel, nutmeg, and forty minutes in the oven.",
        """emoji: 🍝
        accent: bechamel
        english: how long is the lasagne in the oven?
        english: what does Aunt Rosa use instead of ricotta?
        typo: lasange ricota""",
    ),
    (
        "What is a good present for a colleague who retires and loves beekeeping?",
        "A hand carved honey dipper or a course on mead.",
        """english: what present did you suggest for the retiring colleague?
        english: which colleague loves bees, the beekeeper?
        plural: presents for colleagues
        typo: beekeping presnt""",
    ),
    (
        "The children want a hamster, but my husband sneezes near fur",
        "Consider an aquarium with guppies: no fur, little noise.",
        """english: which pet did you suggest because of the fur?
        english: what makes my husband sneeze?
        plural: hamsters
        plural: child aquariums
        typo: hampster sneezing""",
    ),
    (
        "I wrote a haiku on fog, and the magazine accepted it",
        "Wonderful! Your haiku will appear in the autumn issue.",
        """english: in which issue will my haiku be?
        english: what did I write about the fog?
        plural: magazines accepting haikus
        typo: magasine haiku""",
    ),
)

LATER: Final[tuple[tuple[str, str, str], ...]] = (
    ("My locker at the gym is 27", "My locker at the gym is 31 now", "which locker do I have at the gym?"),
    ("The standup is in room Elm", "The standup is in room Oak", "in which room is the standup?"),
    ("My dentist is Dr. Pohl", "My dentist is Dr. Quast", "who is my current dentist?"),
    ("I drive a green Fiat", "I drive a grey Volvo", "what car do I drive? fiat or volvo"),
    ("The alarm code is 5519", "The alarm code is 8802", "what is the latest alarm code"),
)
"""What was said first, what was said later, and the question that only the later one answers."""

_THINGS: Final = tuple(
    """
    guitar bread passport bicycle candle novel recipe museum curtain ladder battery ticket violin carpet
    orchard compass lantern pottery blanket tractor saddle harbour meadow quilt kettle mirror pillow basket
    """.split()  # noqa: SIM905 (thirty words)
)
_FORMS: Final = (
    ("Can you tell me what to do with the {0} and the {1} today?", "First see to the {0}, then to the {2}."),
    ("How do I choose a good {0} for my {1}?", "It depends on the {2}; the {0} should be easy to keep."),
    ("When should we buy the next {0}?", "In the week after the {1}, or when the {2} is paid for."),
    ("Is it true that a {0} costs more than a {1}?", "Most of the time; have a look at the {2} as well."),
)


def idle_talk(count: int) -> list[tuple[str, str]]:
    """Messages and answers that answer nothing that is asked, the same at each call."""
    drawn = random.Random(11)
    made = []
    for number in range(count):
        words = drawn.sample(_THINGS, 3)
        message, answer = _FORMS[number % len(_FORMS)]
        made.append((message.format(*words), answer.format(*words)))
    return made


def asked() -> list[tuple[str, str, str]]:
    """(kind, question, message that answers it), of every question."""
    lines = [(line.strip(), fact[0]) for fact in FACTS for line in fact[2].splitlines()]
    made = [(line.partition(": ")[0], line.partition(": ")[2], message) for line, message in lines]
    return [*made, *(("recent", question, later) for _, later, question in LATER)]


def talk() -> list[tuple[str, str]]:
    """All that was said, in its order: facts among idle talk, earlier ones before later ones."""
    said = idle_talk(160)
    facts = [(message, answer) for message, answer, _ in FACTS]
    facts += [(early, "Noted.") for early, _, _ in LATER] + [(late, "Noted.") for _, late, _ in LATER]
    for place, fact in enumerate(facts):
        said.insert(4 * place, fact)
    return said
