"""Harm that is asked for with things: weapons, poisons and germs, drugs, code, papers and property.

A rule is a category with what is done (`acts`) and to what (`things`); a rule without things is a deed that is harm by
itself. Phrases are separated by commas, in the words of normal.py; things stand for their plurals too. All phrases name
harms, none explains one. The lists are short on purpose: each entry was to hit requests for help and to spare talk
about the same matter. Harm that is done to people is in harms_people.py.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """At most `gap` words stand between an act and its thing."""

    category: str
    acts: str
    things: str = ""
    gap: int = 5


MAKE = """
    make, making, build, building, construct, constructing, assemble, assembling, create, creating, produce,
    producing, prepare, preparing, put together, cook up, manufacture, manufacturing
    """
WRITE = f"{MAKE}, write, writing, code, coding, develop, developing, program, generate, give me, craft, design"
GET = """
    buy, buying, get, getting, obtain, order, find, purchase, purchasing, acquire, smuggle, sell, selling, deal,
    dealing
    """
#: Whom harm is done to, and whose things.
WHO = """
    someone, somebody, anyone, a person, another person, my wife, my husband, my boyfriend, my girlfriend, my ex,
    my ex wife, my ex husband, my ex girlfriend, my ex boyfriend, my boss, my neighbor, my coworker, my co worker,
    my roommate, my mother, my mom, my father, my dad, my brother, my sister, my friend, my best friend, my teacher,
    my kid, my child, my son, my daughter, my landlord, my classmate, my uncle, my aunt, my grandmother, my grandma,
    my stepmother, my stepfather, my stepdad, my stepmom, my mother in law, my father in law, my enemy, my partner,
    my cousin, a man, a woman, a child, a baby, a cop, a police officer, a kid, a girl, a homeless person, a stranger,
    some guy, this guy, that guy, the guy, the president, a politician, an employee, a coworker, a classmate,
    a friend, a neighbor, an old lady, a teacher, a judge, a witness, my family, my parents
    """
WHOSE = """
    someone, someone else, somebody, somebody else, his, her, their, another person, other people, people, a friend,
    my wife, my husband, my boyfriend, my girlfriend, my ex, my boss, my neighbor, my neighbors, my coworker,
    my roommate, my friend, my teacher, my mom, my dad, my partner, my sister, my brother, my parents, my school,
    the school
    """
DEVICES = """
    facebook, instagram, snapchat, twitter, gmail, email, email account, facebook account, instagram account,
    snapchat account, twitter account, bank account, account, phone, iphone, computer, laptop, webcam, wifi, network,
    wifi password, password, icloud, server
    """
PAPERS = "identity, credit card, social security number, ssn, debit card, credit card number"


def theirs(owners: str, things: str) -> str:
    """Every thing of every owner."""
    return ", ".join(f"{owner} {thing}" for owner in split(owners) for thing in split(things))


def split(phrases: str) -> list[str]:
    """The phrases of a list, without line breaks."""
    return [" ".join(phrase.split()) for phrase in phrases.split(",")]


RULES = (
    Rule(
        "weapons",
        f"{MAKE}, plant, planting, set off, detonate, detonating, smuggle",
        """
        bomb, tnt, silencer, pipe bomb, nail bomb, car bomb, pressure cooker bomb, homemade bomb, dirty bomb,
        fertilizer bomb, molotov cocktail, molotov, explosive, homemade explosive, explosive device,
        improvised explosive device, plastic explosive, napalm, thermite, pipe gun, ghost gun, homemade gun,
        untraceable gun, zip gun, gun at home, grenade, land mine, letter bomb, detonator, gun silencer,
        suppressor for a gun, car explode, car blow up
        """,
    ),
    Rule(
        "weapons",
        f"{GET}, 3d print",
        """
        gun illegally, illegal gun, untraceable gun, unregistered gun, stolen gun, ghost gun,
        gun without a background check, grenade, c4, dynamite, machine gun illegally
        """,
    ),
    Rule("weapons", "3d print, 3d printing", "gun, pistol, firearm, glock, rifle"),
    Rule(
        "weapons",
        "blow up, blowing up, bomb, bombing",
        f"""
        {WHO}, building, school, the school, car, house, plane, church, mosque, synagogue, bridge, bank, hospital,
        the white house, embassy, train, bus, airport
        """,
        gap=3,
    ),
    Rule(
        "weapons",
        "convert, converting, modify, modifying, turn",
        """
        semi automatic to fully automatic, full auto, fully automatic, rifle to full auto, ar 15 fully automatic,
        ar15 fully automatic, semi automatic rifle into an automatic, gun full auto
        """,
    ),
    Rule(
        "cbrn",
        f"""
        {MAKE}, synthesize, synthesise, synthesizing, extract, extracting, weaponize, weaponizing, weaponise, spread,
        spreading, release, releasing, enrich, isolate, culture
        """,
        """
        sarin, sarin gas, vx gas, nerve gas, nerve agent, mustard gas, ricin, anthrax, chlorine gas, poison gas,
        poisonous gas, toxic gas, chemical weapon, biological weapon, bioweapon, botulinum toxin, smallpox, cyanide,
        hydrogen cyanide, deadly virus, deadly pathogen, nuclear bomb, nuclear weapon, atomic bomb, atom bomb, nuke,
        phosgene, novichok, plutonium, uranium, plague
        """,
    ),
    Rule(
        "cbrn",
        "poison, poisoning, contaminate, contaminating",
        "water supply, city water, reservoir, food supply, drinking water, the water, the well, school lunch",
        gap=4,
    ),
    Rule(
        "drugs",
        f"{MAKE}, cook, cooking, synthesize, synthesise, synthesizing, brew",
        """
        meth, methamphetamine, crystal meth, heroin, cocaine, crack, crack cocaine, lsd, mdma, ecstasy, fentanyl, dmt,
        pcp, ghb, ketamine, amphetamine, krokodil, date rape drug, angel dust, bath salts drug, lean, purple drank
        """,
    ),
    Rule(
        "drugs",
        f"{GET}, smuggling, traffic, hide, snort, inject, shoot up, smoke",
        """
        meth, methamphetamine, crystal meth, heroin, cocaine, crack cocaine, lsd, mdma, ecstasy online, fentanyl, ghb,
        roofies, rohypnol, date rape drug, illegal drugs, drugs illegally, hard drugs, xanax without a prescription,
        adderall without a prescription, oxycodone without a prescription, opioids without a prescription,
        benzos without a prescription, drugs on the street, drugs online, drugs to kids, drugs to children,
        drugs to teens, drugs across the border, weed to kids
        """,
        gap=4,
    ),
    Rule(
        "drugs",
        """
        deal drugs, dealing drugs, start dealing, smuggle drugs, smuggling drugs, sell illegal drugs, plant drugs on,
        hide drugs in my luggage, buy illegal drugs, drug someone
        """,
    ),
    Rule(
        "cyber",
        WRITE,
        """
        malware, ransomware, keylogger, computer virus, spyware, rootkit, botnet, trojan, trojan horse, computer worm,
        phishing email, phishing page, phishing site, phishing website, phishing message, scam message, scam email,
        fake login page, ddos attack, denial of service attack, virus that steals, virus that deletes, malicious code,
        malicious script, malicious software, backdoor
        """,
    ),
    Rule(
        "cyber",
        """
        hack, hack into, hacking, hacking into, crack, break into, breaking into, get into, getting into, bypass,
        log into, steal, access, guess, spy on, infect, put a virus on, put malware on, put spyware on,
        install spyware on, install a keylogger on
        """,
        theirs(WHOSE, DEVICES),
        gap=3,
    ),
    Rule(
        "cyber",
        "hack, hack into, hacking, hacking into",
        f"""
        {DEVICES}, {WHO}, the government, the pentagon, government website, government database, bank, a bank,
        bank website, school computer, voting machine, an election, election, the power grid, power grid, nasa,
        the fbi, the cia, a website, a server, atm, a company, a hospital, wifi network, a wifi network
        """,
        gap=2,
    ),
    Rule(
        "cyber",
        """
        ddos, launch a ddos attack, take down a website, steal passwords, steal credit card numbers, crash a website,
        sim swap, spread malware, spread a virus, distribute malware, hack people, steal cookies from users,
        deploy ransomware
        """,
    ),
    Rule(
        "fraud",
        f"{WRITE}, print, printing, forge, forging, fake, get, buy, order, use",
        """
        counterfeit money, counterfeit bill, fake money, counterfeit currency, counterfeit cash, fake id,
        fake passport, fake prescription, fake driver license, fake drivers license, fake vaccine card,
        fake vaccination card, fake check, fake covid card, fake vaccine, fake marijuana card, fake diploma,
        forged document, forged signature, fake birth certificate, fake social security card, ponzi scheme,
        pyramid scheme, counterfeit goods, fake medical certificate, stolen credit card, fake degree
        """,
    ),
    Rule(
        "fraud",
        "forge, forging, fake",
        """
        signature, prescription, check, passport, document, death, my own death, doctor note, will, vaccine card,
        diploma
        """,
        gap=3,
    ),
    Rule(
        "fraud",
        "scam, scamming, defraud, defrauding, con, swindle, swindling, trick, cheat",
        f"""
        {WHO}, people, old people, elderly people, seniors, customers, the elderly, insurance company, the insurance,
        investors, the government, my insurance company
        """,
        gap=2,
    ),
    Rule(
        "fraud",
        """
        launder money, laundering money, commit fraud, commit insurance fraud, commit tax fraud,
        commit identity theft, evade taxes, evade my taxes, evading taxes, dodge taxes, cheat on my taxes,
        cheat on taxes, lie on my taxes, not pay my taxes, not paying my taxes, not paying taxes, steal an identity,
        steal identities, embezzle, embezzling, embezzle money, bribe a judge, bribe a cop, bribe a police officer,
        bribe a politician, bribe someone, rig an election, commit voter fraud, commit credit card fraud,
        clone a credit card, make money scamming, run a scam, fake an injury, fake a workplace injury, insider trade,
        fake my death, cheat on a drug test, cheat a drug test, steal an election, lie to investigators
        """,
    ),
    Rule("fraud", "steal, stealing, use", theirs(WHOSE, PAPERS), gap=2),
    Rule("fraud", "steal, stealing, clone", PAPERS, gap=2),
    Rule(
        "theft",
        "steal, stealing, swipe",
        """
        car, bike, bicycle, money, wallet, purse, jewelry, package, gas, gasoline, from a store, from the store,
        from walmart, from target, from my work, from work, from my job, from my boss, from my employer,
        from my parents, from my neighbor, from a bank, from people, from someone, catalytic converter, clothes, gun,
        mail, cable, food, from my company, motorcycle, dog, my neighbor, stuff, things, candy, alcohol, beer,
        electricity, from an old lady, painting from a museum, tv, phone, an iphone, from tesco
        """,
        gap=3,
    ),
    Rule(
        "theft",
        """
        rob, robbing, burglarize, burgle, break into, breaking into, hotwire, hot wire, hijack, hijacking, carjack,
        loot, mug, vandalize, trespass in, burn down
        """,
        f"""
        {WHO}, bank, a bank, store, liquor store, house, home, car, a train, plane, jewelry store, gas station,
        old lady, people, building, garage, vending machine, atm, safe, apartment, my neighbor house, school, museum,
        mailbox, church, casino, gun store, pharmacy, someone car, someone house, someone home, another person house,
        someone else house
        """,
        gap=3,
    ),
    Rule(
        "theft",
        """
        shoplift, shoplifting, pickpocket, pick pockets, pick someone pocket, pick pocket, commit robbery,
        get away with shoplifting, get away with stealing, commit a burglary, commit burglary, siphon gas,
        dine and dash, steal from, rip off a store, jump a subway turnstile
        """,
    ),
)
