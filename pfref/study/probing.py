"""Train a probe from outcomes alone: sample, grade, fit, choose, measure.

    python -m pfref.study.probing --model Qwen/Qwen2.5-Math-1.5B-Instruct \\
        --data math_train.jsonl --out runs/probe

Every prefix is labelled with the outcome of its sample, so a probe learns the chance
that the policy gets from there to a right answer, which is the optimal twist of chapter
12. Designs are compared by their AUC within a problem and step on a fifth of the
training problems; the best linear one is written. What is reported comes from other
problems. Whatever was done is not done again.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from ..errors import UserError
from ..hardware import best_device
from ..lm import LanguageModel
from ..probe import write_probe
from ..records import write_record
from ..settings import Proposal, Settings
from .arguments import part
from .designs import NULLS, fit_all
from .outcomes import Outcomes, Plan, grade, missing, sample, solutions_at
from .rewards import measured
from .tasks import TASKS, Item, load_items

# What decides the samples.
SAMPLED = (
    *("model", "data", "task", "problems", "samples", "held_out", "held_out_samples"),
    *("skip_last", "layers", "max_tokens", "temperature", "batch", "seed", "dtype"),
)


def parser() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(
        prog="python -m pfref.study.probing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    flags.add_argument("--model", required=True, help="the policy")
    flags.add_argument("--data", required=True, help="problems with answers")
    flags.add_argument(
        "--task", default="math500", choices=list(TASKS), help="how they are asked"
    )
    flags.add_argument("--out", type=Path, required=True, help="folder of all results")
    several = partial(at_least, 2)
    flags.add_argument("--problems", type=several, default=512, help="for training")
    flags.add_argument("--samples", type=several, default=4, help="of each of these")
    flags.add_argument("--held-out", type=several, default=64, help="problems")
    flags.add_argument("--held-out-samples", type=several, default=16, help="of each")
    flags.add_argument(
        "--skip-last", type=partial(at_least, 0), default=0, help="problems not to use"
    )
    flags.add_argument(
        "--layers", type=layers, default=(14, 19, 28), help="read after: 14,19,28"
    )
    flags.add_argument("--max-tokens", type=int, default=1024)
    flags.add_argument("--temperature", type=float, default=0.8)
    flags.add_argument("--batch", type=int, default=128, help="particles at once")
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument(
        "--part",
        type=part,
        default=(1, 1),
        help="sample this part of the batches only, such as 1/2",
    )
    flags.add_argument("--processes", type=int, default=1, help="that grade")
    flags.add_argument("--device")
    flags.add_argument("--dtype", default="auto")
    flags.add_argument("--quiet", action="store_true")
    return flags


def at_least(least: int, text: str) -> int:
    if int(text) < least:
        raise argparse.ArgumentTypeError(f"at least {least}, and not {text}")
    return int(text)


def layers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def plans(flags: argparse.Namespace) -> dict[str, Plan]:
    """What is sampled for training and for measuring, of problems in random order."""
    items = load_items(flags.data)
    if flags.skip_last:
        items = items[: -flags.skip_last]
    wanted = flags.problems + flags.held_out
    if len(items) < wanted:
        raise UserError(
            f"{flags.data} holds {len(items)} problems, fewer than {wanted}"
        )
    source = torch.Generator().manual_seed(flags.seed)
    order = torch.randperm(len(items), generator=source).tolist()
    mixed = [items[k] for k in order[:wanted]]
    limits = Proposal(
        temperature=flags.temperature,
        max_tokens=flags.max_tokens,
        max_step_tokens=flags.max_tokens,
    )
    settings = Settings(seed=flags.seed, batch=flags.batch, proposal=limits)

    def plan(some: list[Item], samples: int) -> Plan:
        return Plan(some, samples, flags.layers, flags.task, settings)

    return {
        "training": plan(mixed[: flags.problems], flags.samples),
        "held-out": plan(mixed[flags.problems :], flags.held_out_samples),
    }


def collect(flags: argparse.Namespace, lm: LanguageModel | None = None) -> None:
    """Sample what is missing, and grade. Raises UserError if the folder's was sampled
    otherwise.
    """
    told = {name: str(getattr(flags, name)) for name in SAMPLED}
    file = flags.out / "sampled.json"
    if file.exists() and (before := json.loads(file.read_text())) != told:
        name = next(name for name in SAMPLED if before.get(name) != told[name])
        raise UserError(
            f"{flags.out} was sampled with {name} = {before.get(name)}, and not "
            f"{told[name]}; give another --out, or the same again"
        )
    for name, plan in plans(flags).items():
        folder = flags.out / name
        if wanted := missing(plan, folder, flags.part):
            lm = lm or LanguageModel.load(flags.model, flags.device, flags.dtype)
            lm.listen(flags.layers)  # tells a layer that is not there
            folder.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(told))
            sample(plan, lm, folder, wanted, flags.quiet)
        if flags.part == (1, 1):
            grade(plan, folder, flags.processes)
    if lm:
        lm.listen(())


def train(flags: argparse.Namespace, device: str | torch.device) -> dict[str, Any]:
    """Fit all designs, write the best linear one, and measure all on held-out
    problems.
    """
    planned = plans(flags)
    data, held = (Outcomes.read(flags.out / n, len(flags.layers)) for n in planned)
    designs = fit_all(data, flags.layers, device)
    scores = {name: null(held) for name, null in NULLS.items()}
    results: dict[str, Any] = {name: {} for name in NULLS}
    for name, design in designs.items():
        scores[name] = design.score(held.states[:, design.place].float())
        results[name] = dict(layer=design.layer, chose=design.within, **design.told)
    for name, z in scores.items():
        results[name] |= measured(z, held, planned["held-out"])
    best = max((d.within, name) for name, d in designs.items() if d.linear)[1]
    if fitted := designs[best].linear:
        told = dict(layer=designs[best].layer, model=flags.model, design=best)
        write_probe(flags.out / "probe.safetensors", *fitted, **told)
    shared = dict(best=best, **{n: counted(planned[n], flags.out / n) for n in planned})
    return dict(shared, designs=results)


def counted(plan: Plan, folder: Path) -> dict[str, Any]:
    """What was sampled: how many, how long, how often right."""
    solutions = [s for k in range(len(plan.batches())) for s in solutions_at(folder, k)]
    return dict(
        problems=len(plan.items),
        samples=len(solutions),
        tokens=sum(s["tokens"] for s in solutions),
        finished=sum(s["finished"] for s in solutions) / len(solutions),
        right=sum(s["right"] for s in solutions) / len(solutions),
    )


def main(arguments: list[str] | None = None) -> int:
    flags = parser().parse_args(arguments)
    try:
        collect(flags)
        if flags.part != (1, 1):
            return 0
        results = train(flags, best_device(flags.device))
    except UserError as error:
        print(f"pfref: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\npfref: stopped; the same command goes on", file=sys.stderr)
        return 130
    except (OSError, json.JSONDecodeError, SafetensorError) as error:
        print(
            f"pfref: a file in {flags.out} cannot be read or written: {error}; if it "
            "is damaged, delete it and give the same command again",
            file=sys.stderr,
        )
        return 2
    except torch.OutOfMemoryError:
        print(
            f"pfref: out of memory with {flags.batch} samples at once; give a smaller "
            "--batch, and another --out",
            file=sys.stderr,
        )
        return 2
    told = {k: v for k, v in vars(flags).items() if k not in ("out", "quiet")}
    command = "python -m pfref.study.probing"
    write_record(flags.out / "probe.json", command, results, **told)
    print(summary(results))
    return 0


def summary(results: dict[str, Any]) -> str:
    """AUC within problem and step, and what the samples of a problem give together."""
    lines = [f"{'design':20} {'AUC within':>22} {'best of':>8} {'weighted':>8}"]
    for name, found in results["designs"].items():
        within, gain = found["within"], found["chosen"]
        low, high = within["interval"] or (float("nan"),) * 2
        auc = f"{within['auc'] or float('nan'):.3f} [{low:.3f}, {high:.3f}]"
        lines.append(
            f"{name:20} {auc:>22} {gain['best'][0]:8.3f} {gain['weighted'][0]:8.3f}"
        )
    lines.append(
        f"one sample {gain['one'][0]:.3f}, majority {gain['majority'][0]:.3f}, "
        f"{gain['samples']} samples a problem; chosen: {results['best']}"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
