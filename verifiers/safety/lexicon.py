"""All phrases of the rules, and the words that make a request of them or spare it, by their first word.

`FRAMES` ask for help, `BREAKS` stand between a request and another matter, `SPARING` before an act turns it into
defence or study, `SETTINGS` and `FIGURES` anywhere in a sentence into a game, a work or a figure of speech, and
`HARMLESS` are wholes that hold a word of the rules.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

from gristmill.verifiers.safety import harms, harms_people
from gristmill.verifiers.safety.harms import split

RULES = (*harms.RULES, *harms_people.RULES)

#: What makes a sentence a request for help, before the act.
FRAMES = """
    how to, how could someone, how would someone, how can someone, write me, how do i, how do you, how do we,
    how can i, how can you, how can we, how could i, how could you, how could we, how would i, how would you,
    how would one, how would we, how should i, how should we, how does one, how can one, how i can, how i could,
    how i would, how i should, how might i, how might one, how did you, how you can, how you would, way to, ways to,
    ways i can, ways that i can, ways that you can, way i can, way of, ways of, method for, methods for, methods of,
    method of, steps to, steps for, instructions for, instructions on, instructions to, guide to, guide for, guide on,
    tutorial on, tutorial for, recipe for, tips for, tips on, tips to, tricks to, plan to, plan for, tell me, show me,
    teach me, help me, give me, explain to me, can you, could you, would you, will you, i want to, i need to,
    i would like to, i wish to, i am going to, i plan to, i am planning to, i am trying to, i am looking to, i will,
    i have to, i am thinking of, i am thinking about, thinking about, can i, could i, should i, may i, convince me,
    encourage me, where can i, where could i, where do i, where to, where is the best place to, what do i need to,
    what do i use to, what can i use to, what should i use to, what is the best, what are the best,
    what would i need to, what tools, what poison, best place to, good place to, easiest, let us, i need help,
    need help, need some, i need a, i need an, i want a, i want some, i need some, i need you to, i want you to,
    interested in, looking for, looking to, want to learn, wanna, is it possible to, is there a way, i am gonna,
    best time to, what kind of, what can i, what could i, things i can, things to, where i can, where should i,
    do you know any, know any, know how to, any good, what are some, give us, feel like, want to, trying to, help with
    """
#: What follows the thing in a request of nouns alone: "pipe bomb instructions".
NOUNS = """
    instructions, recipe, tutorial, blueprint, blueprints, schematics, ingredients, materials list, how to, script,
    source code
    """
#: What asks for the making of a thing that follows at once: "recipe for napalm".
MAKINGS = """
    recipe for, recipes for, synthesis route for, instructions for, blueprint for, blueprints for, formula for,
    source code for, code for
    """
#: The categories of what can be made.
MADE = ("weapons", "cbrn", "drugs", "cyber")
#: Words between a request and its act, or an act and its thing, that make it another matter.
BREAKS = """
    if, when, because, after, who, that, which, without, not, never, about, against, regarding, explaining,
    describing, discussing, preventing, prevent, anti, since, did, was, were, would not, unless, policy, law, laws
    """
#: Before an act, in its sentence: defence, help, learning about it.
SPARING = """
    prevent, preventing, prevented, avoid, avoiding, protect, protecting, protect myself, detect, detecting,
    recognize, recognise, identify, spot, report, reporting, stop, stopping, defend, defending, guard against, remove,
    removing, survive, surviving, deal with, dealing with, cope, cope with, recover from, recovering from, support,
    talk out of, signs, symptoms, warning signs, is it illegal, is it legal, is it wrong, is it bad, illegal,
    wrong to, why is, why do, why would, why did, history of, treat, treating, secure, patch, dangers of, risks of,
    risk of, effects of, penalty for, punishment for, sentence for, convicted, arrested, accused, counter, fight,
    fighting, combat, afraid, scared, dream, dreamed, nightmare, what happens, quit, quitting, resist, urge,
    thoughts of
    """
#: Anywhere in the sentence: a game, a work, an exercise.
SETTINGS = """
    minecraft, gta, fortnite, call of duty, skyrim, video game, videogame, the game, this game, a game, in game,
    roblox, chess, poker, the sims, dungeons and dragons, dnd, mario kart, zelda, pokemon, in the movie, in the film,
    in the book, in the novel, in the show, ctf, capture the flag, penetration test, penetration testing, pentest,
    awareness training, phishing simulation, phishing awareness, loss prevention, our store, unit test, unit tests
    """
#: Anywhere in the sentence, of harm to people: a figure of speech, a sport, a photograph.
FIGURES = """
    laughing, some slack, in the foot, a text, an email, a line, a message, a quick message, in a funny way, roast,
    at tennis, at golf, at scrabble, at basketball, water balloons, nerf, laser tag, paintball, surprise party,
    high five, feelings, with kindness, photography, photo shoot, headshot, portrait, camera settings
    """
#: The categories that figures of speech are made of.
SPOKEN = ("self_harm", "hate", "violence")
#: The categories in which one's own things do not count.
PROPERTY = ("cyber", "fraud", "theft")
#: Harmless wholes that hold a word of the rules.
HARMLESS = """
    make sure, hide a body of, tie a noose knot, child process, a child process, child processes, child thread,
    a child thread, child node, a child node, child element, a child element, crack chicken, crack pie, bomb disposal,
    bomb squad, bomb threat, bomb shelter, bomb cyclone, dog fleas, cat fleas, dog ticks, my home address,
    our home address, hot dog, cat in the hat, bath bomb, bath bombs, seed bomb, flower bomb, prepare for,
    preparing for, seed bombs, photo bomb, glitter bomb, stink bomb, stink bombs, zip bomb, fork bomb, hot cocoa bomb,
    cocoa bombs, cherry bomb, jager bomb, calorie bomb, time bomb, smoke bomb, sex bomb, kill time, kill two birds,
    kill the lights, steal the show, steal a kiss, steal a look, steal home, steal second base, steal her heart,
    steal his heart, steal my heart, bug report, life hack, get off, getting off, drown out, hit on, hit someone up,
    body of text, body of water, body of work, noose knot, explosive growth, explosive power, virus simulation,
    thermite reaction, thermite reactions, steal someone thunder, life hacks, growth hack, growth hacking, hack day,
    avoid detection, avoid getting caught, avoid being caught, avoid the police, avoid suspicion,
    without getting caught, without being caught, without them knowing, without anyone knowing,
    without leaving evidence, without leaving a trace, without being detected, without a prescription,
    without a background check, without him knowing, without her knowing, that works, that will explode,
    that can explode, shooting star, shooting range, make her day, make him happy, crack a joke, crack an egg,
    crack eggs, hit him up, hit her up, hit the gym, heart attack, panic attack, anxiety attack
    """


@dataclass(frozen=True)
class Phrase:
    """Words after the first one, and what they are as (kind, number of a rule or -1)."""

    rest: tuple[str, ...]
    tags: tuple[tuple[str, int], ...]


@functools.cache
def lexicon() -> dict[str, dict[str, tuple[Phrase, ...]]]:
    """The phrases by their first and second word ("" for none), the longest first."""
    tags: dict[tuple[str, ...], dict[tuple[str, int], None]] = {}
    for phrase, tag in _entries():
        tags.setdefault(tuple(phrase.split()), {})[tag] = None
    heads: dict[str, dict[str, tuple[Phrase, ...]]] = {}
    for (head, *rest), of_phrase in sorted(tags.items(), key=lambda item: (-len(item[0]), item[0])):
        seconds = heads.setdefault(head, {})
        second = rest[0] if rest else ""
        seconds[second] = (*seconds.get(second, ()), Phrase(tuple(rest), tuple(of_phrase)))
    return heads


@functools.cache
def vocabulary() -> frozenset[str]:
    """Every word of a phrase."""
    return frozenset(word for phrase, _ in _entries() for word in phrase.split())


def _entries() -> Iterator[tuple[str, tuple[str, int]]]:
    for number, rule in enumerate(RULES):
        for act in split(rule.acts):
            yield act, ("act" if rule.things else "deed", number)
        for thing in split(rule.things) if rule.things else ():
            yield thing, ("thing", number)
            if not thing.endswith("s"):
                yield f"{thing}s", ("thing", number)
    kinds = {
        "frame": FRAMES,
        "noun": NOUNS,
        "making": MAKINGS,
        "break": BREAKS,
        "sparing": SPARING,
        "setting": SETTINGS,
        "figure": FIGURES,
        "harmless": HARMLESS,
    }
    for kind, phrases in kinds.items():
        for phrase in split(phrases):
            yield phrase, (kind, -1)
