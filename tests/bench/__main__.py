"""Ratios against the named peers, each measured beside us in one run: one JSON line per ratio.

usage: python -m tests.bench [NAME ...]    names: crawl_to_tokens extraction overhead reading rules agreement packing
                                                  encoding dedup dedup_growth dedup_million mixing exporting blocks
                                                  decontamination redaction blocklists blocklist_load learned perplexity
                                                  rethresholding lid maths programs sandbox
                                                  instructions forms safety judging merging chats
                                                  reading_shards preferring online replying perplexities
                                                  near_prompts feedback_api
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

from tests.bench import (
    blocklist,
    chat,
    crawl,
    decontam,
    dedup,
    encode,
    engines,
    evaluate,
    export,
    feedback,
    instructions,
    judge,
    learned,
    lid,
    maths,
    merge,
    mix,
    pack,
    pii,
    preference,
    programs,
    reading,
    rethreshold,
    rl,
    rules,
    safety,
    sandbox,
    sft,
    shards,
    trove,
)

BENCHES: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
    "crawl_to_tokens": crawl.crawl_to_tokens,
    "extraction": crawl.extraction,
    "overhead": crawl.overhead,
    "reading": reading.reading,
    "rules": rules.rules,
    "agreement": rules.agreement,
    "packing": pack.packing,
    "encoding": encode.encoding,
    "dedup": dedup.dedup,
    "dedup_growth": dedup.dedup_growth,
    "dedup_million": dedup.dedup_million,
    "mixing": mix.mixing,
    "exporting": export.exporting,
    "blocks": trove.blocks,
    "decontamination": decontam.decontamination,
    "redaction": pii.redaction,
    "blocklists": blocklist.blocklists,
    "blocklist_load": blocklist.blocklist_load,
    "learned": learned.learned,
    "perplexity": learned.perplexity,
    "rethresholding": rethreshold.rethresholding,
    "lid": lid.lid,
    "maths": maths.verdicts,
    "programs": programs.verdicts,
    "merging": merge.merging,
    "sandbox": sandbox.sandboxed_runs,
    "instructions": instructions.following,
    "forms": instructions.forms,
    "safety": safety.safety,
    "judging": judge.judging,
    "chats": chat.chats,
    "near_prompts": sft.near_prompts,
    "reading_shards": shards.reading_shards,
    "preferring": preference.preferring,
    "online": rl.online,
    "replying": engines.replying,
    "perplexities": evaluate.perplexity,
    "feedback_api": feedback.feedback_api,
}


def main(names: list[str]) -> int:
    """Run benches; 1 where a bar is missed."""
    unknown = sorted({*names} - {*BENCHES})
    if unknown:
        sys.exit(f"no bench {', '.join(unknown)}; there are: {', '.join(BENCHES)}")
    missed = False
    for name in names or list(BENCHES):
        for line in BENCHES[name]():
            print(json.dumps({"bench": name, **line}), flush=True)
            missed |= line.get("met") is False
    return int(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
