#!/usr/bin/env python3
"""Writes the data set of the quickstart: multiple-choice word problems for a very small model.

    make_word_problems.py FOLDER [--train N] [--dev N] [--seed S]

makes FOLDER/train.jsonl and FOLDER/dev.jsonl, one object a line: id, task, question, choices,
answer and, in train, a rationale. The same arguments give the same bytes.

Seven kinds of problem take turns. Each needs one small step that a 135M model does not make by
itself but can learn from a few hundred examples: compare quantities, follow an object or an owner,
put people in order, stand in a line, add or take away, count days. The wrong choices come from the
same question, so that naming what was mentioned is not enough. No sentence of a dev question occurs
in a train question.
"""
import argparse
import json
import os
import random

NAMES = """Ada Adil Aiko Amina Anna Asha Ben Bella Boris Carla Chen Clara Dana David Diego Elena Emma
Eric Farid Fatima Felix Finn Gina Grace Hana Hugo Ida Igor Ines Ivan Jack Jana Jonas Julia Kai Karim
Kate Lara Leo Lily Lina Lucas Maria Mark Maya Mei Mila Nadia Nina Noah Nora Olga Omar Oscar Paul Pia
Rosa Ruth Sam Sara Sofia Tariq Tess Tom Uma Vera Victor Wanda Yara Yusuf Zoe""".split()
PLURALS = """apples balloons beads books bottles boxes buttons candles cards chairs coins cookies
cups eggs flowers keys kites lemons marbles masks nuts oranges pears pencils photos plums postcards
ribbons rings shells spoons stamps stickers stones tickets tomatoes toys""".split()
OBJECTS = """ball brush camera clock coat compass drum flute hammer hat helmet kite knife lamp letter
map mirror mug necklace notebook phone photo plate purse ring rope scarf spoon torch towel umbrella
violin wallet watch whistle""".split()
PLACES = """attic,bag,barn,basement,basket,bathroom,bedroom,box,bucket,cabin,car,cellar,chest,closet,
cupboard,desk,drawer,garage,garden,hall,kitchen,library,locker,office,pantry,shed,shelf,suitcase,
tent,trunk,van,workshop""".replace("\n", "").split(",")
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
NUMBERS = "zero one two three four five six".split()
EVENTS = ["concert", "exam", "football match", "holiday", "party", "picnic", "school trip",
          "swimming lesson", "visit to the dentist", "wedding"]
# comparative, "the most", "the least"
SCALES = [("taller", "tallest", "shortest"), ("older", "oldest", "youngest"),
          ("faster", "fastest", "slowest"), ("heavier", "heaviest", "lightest"),
          ("stronger", "strongest", "weakest"), ("richer", "richest", "poorest")]


def listed(words, last="and"):
    return ", ".join(words[:-1]) + f" {last} " + words[-1]


def compare(r):
    """Who has the most, or the fewest?"""
    names, thing = r.sample(NAMES, r.choice((3, 4))), r.choice(PLURALS)
    counts = r.sample(range(2, 40), len(names))
    verb = r.choice(("has", "owns", "carries", "collected", "found"))
    sentences = [f"{n} {verb} {c} {thing}." for n, c in zip(names, counts)]
    most = r.random() < 0.5
    answer = names[counts.index(max(counts) if most else min(counts))]
    sentences.append(f"Of {listed(names)}, who has the {'most' if most else 'fewest'} {thing}?")
    number = max(counts) if most else min(counts)
    return sentences, names, answer, (
        f"The {'largest' if most else 'smallest'} of {listed([str(c) for c in counts])} is {number}. "
        f"{answer} has {number} {thing}, so the answer is {answer}.")


def place(r):
    """Where is the object, when another one was moved too?"""
    name, helper = r.sample(NAMES, 2)
    thing, other = r.sample(OBJECTS, 2)
    first, second, wrong, unused = r.sample(PLACES, 4)
    moved = [f"{name} put the {thing} in the {first} and the {other} in the {wrong}.",
             f"Later {helper} moved the {thing} to the {second}."]
    if r.random() < 0.5:
        moved.append(f"Then {helper} cleaned the {unused}.")
    if r.random() < 0.5:
        target, where, why = thing, second, f"{helper} moved the {thing} to the {second}"
    else:
        target, where, why = other, wrong, f"The {other} was put in the {wrong} and stayed there"
    choices = [first, second, wrong] + ([unused] if len(moved) == 3 else [])
    return moved + [f"Where is the {target} that {name} had?"], choices, where, (
        f"{why}, so the answer is {where}.")


def owner(r):
    """Who has it after it was handed on?"""
    names, thing = r.sample(NAMES, r.choice((3, 4))), r.choice(OBJECTS)
    verbs = r.choices(("gave", "lent", "sold", "passed"), k=len(names) - 1)
    sentences = [f"{names[0]} had a {thing}." if thing[0] not in "aeiou" else
                 f"{names[0]} had an {thing}."]
    sentences += [f"{a} {v} the {thing} to {b}." for a, v, b in zip(names, verbs, names[1:])]
    first = r.random() < 0.3
    answer = names[0] if first else names[-1]
    sentences.append(f"Which of {listed(sorted(names))} had the {thing} first?" if first else
                     f"Which of {listed(sorted(names))} has the {thing} now?")
    return sentences, names, answer, (
        f"The {thing} began with {answer}, so the answer is {answer}." if first else
        f"{names[-2]} handed the {thing} to {answer}, who kept it, so the answer is {answer}.")


def order(r):
    """Who is at the end of a scale?"""
    names = r.sample(NAMES, r.choice((3, 4)))  # from the most to the least
    comparative, most, least = r.choice(SCALES)
    facts = [f"{a} is {comparative} than {b}." for a, b in zip(names, names[1:])]
    r.shuffle(facts)
    top = r.random() < 0.5
    answer = names[0] if top else names[-1]
    facts.append(f"Of {listed(sorted(names))}, who is the {most if top else least}?")
    return facts, names, answer, (
        f"From the {most} to the {least} they are {listed(names)}, so the answer is {answer}.")


def line(r):
    """Who stands first, last, or next to someone?"""
    names, spot = r.sample(NAMES, 4), r.choice(("the bus", "tickets", "ice cream", "the doctor",
                                                "the museum", "lunch", "the train"))
    ahead = r.random() < 0.5
    pairs = list(zip(names, names[1:]))
    r.shuffle(pairs)
    facts = [f"{a} waits right in front of {b}." if ahead else f"{b} waits right behind {a}."
             for a, b in pairs]
    at = r.choice((0, 3))
    facts.insert(0, f"{listed(sorted(names))} wait in a line for {spot}.")
    facts.append(f"Who of {listed(sorted(names), 'or')} is {'first' if at == 0 else 'last'}?")
    return facts, names, names[at], (
        f"From the front the line is {listed(names)}, so the answer is {names[at]}.")


def sums(r):
    """How many are there after one change?"""
    (name, helper), thing = r.sample(NAMES, 2), r.choice(PLURALS)
    a, b = r.randint(3, 12), r.randint(2, 8)
    if r.random() < 0.5:
        a += b
        change = r.choice((f"{name} gave {b} of them to {helper}.", f"{name} lost {b} of them.",
                           f"{helper} took {b} of them from {name}."))
        result, step = a - b, f"{a} - {b} = {a - b}"
        wrong = [a + b, a, b, result + 1, result - 1]
    else:
        change = r.choice((f"{helper} gave {name} {b} more.", f"{name} bought {b} more.",
                           f"{name} found {b} more."))
        result, step = a + b, f"{a} + {b} = {a + b}"
        wrong = [abs(a - b), a, b, result + 1, result - 1]
    wrong = [w for w in dict.fromkeys(wrong) if w > 0 and w != result]
    choices = [str(n) for n in [result] + r.sample(wrong, 3)]
    return [f"{name} had {a} {thing}.", change, f"How many {thing} does {name} have now?"], choices, \
        str(result), f"{name} has {step} {thing}, so the answer is {result}."


def days(r):
    """Which day is it then?"""
    name, event, today, n = r.choice(NAMES), r.choice(EVENTS), r.randrange(7), r.randint(1, 4)
    back = r.random() < 0.4
    day = DAYS[(today - n if back else today + n) % 7]
    when = f"{NUMBERS[n]} day{'s' if n > 1 else ''}"
    fact = f"Today is {DAYS[today]}, and {name}'s {event} " + \
        (f"was {when} ago." if back else f"is in {when}.")
    choices = [day] + r.sample([d for d in DAYS if d != day], 4)
    step = [DAYS[(today + (-i if back else i)) % 7] for i in range(1, n + 1)]
    return [fact, f"On which day {'was' if back else 'is'} the {event} of {name}?"], choices, day, (
        f"{'Back' if back else 'On'} from {DAYS[today]}, the days are {', '.join(step)}, "
        f"so the answer is {day}.")


KINDS = (compare, place, owner, order, line, sums, days)


def make(r, n, split, taken):
    """n problems without a sentence of `taken`, and the set of their sentences."""
    records, used = [], set()
    while len(records) < n:
        sentences, choices, answer, why = KINDS[len(records) % len(KINDS)](r)
        if taken.intersection(sentences) or used.intersection(sentences[-1:]):
            continue
        used.update(sentences)
        choices = r.sample(choices, len(choices))
        record = {"id": f"wp-{split}-{len(records)}", "task": "word_problems",
                  "question": " ".join(sentences), "choices": choices, "answer": answer}
        if split == "train":
            record["rationale"] = why
        records.append(record)
    return records, used


def write(path, records):
    with open(path + ".tmp", "w", encoding="utf-8", newline="\n") as f:
        f.writelines(json.dumps(record) + "\n" for record in records)
    os.replace(path + ".tmp", path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--train", type=int, default=300, metavar="N")
    parser.add_argument("--dev", type=int, default=100, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="S")
    args = parser.parse_args()
    r = random.Random(args.seed)
    train, sentences = make(r, args.train, "train", set())
    dev, _ = make(r, args.dev, "dev", sentences)
    os.makedirs(args.folder, exist_ok=True)
    write(os.path.join(args.folder, "train.jsonl"), train)
    write(os.path.join(args.folder, "dev.jsonl"), dev)


if __name__ == "__main__":
    main()
