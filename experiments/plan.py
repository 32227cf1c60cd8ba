"""What a training config needs of each chip, compiled ahead of time: no data, no parameters, no TPU needed."""

import os
import shlex
import sys
import time

import jax
import jax.numpy as jnp
from absl import flags

from experiments import build, cli, runs
from experiments.configs.plan import get_config
from mdmjax import networks
from mdmjax.reports import Report, write_report
from mdmjax.training import plan

PROGRAMS = ("train", "evaluate", "sample")


def devices_of(name: str) -> list:
    """The devices of a TPU topology, or those that are present: `local`, `cpu`."""
    if name in ("local", "cpu"):
        return jax.devices(None if name == "local" else "cpu")
    if ":" not in name:
        raise ValueError(
            f"topology={name!r}: choose local, cpu, or a TPU topology such as v5e:2x2, v5e:16x16, v5p:4x4x4"
        )
    # Compiling needs no TPU: do not look for one, nor mind that another process has loaded libtpu.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    jax.config.update("jax_platforms", "cpu")
    return plan.topology(name)


def training_config(path: str, change: str):
    """The training config with the changes `a.b=value ...`, checked as its own command line would be."""
    words = [f"--config.{word}" for word in change.split()]
    return cli.parse(["plan", f"--config={path}", "--workdir=unused", *words], flags.FlagValues())[0]


def programs(experiment: build.Experiment) -> dict:
    """name -> (jitted function, abstract arguments) of what `train` runs: its own steps, nothing allocated."""
    c, length = experiment.config, experiment.length
    state = plan.abstract(experiment.make_state, experiment.layout)

    def batch(rows, **more):
        shapes = dict(tokens=((rows, length), jnp.int32), ids=((rows,), jnp.int32), **more)
        return {name: jax.ShapeDtypeStruct(*shape) for name, shape in shapes.items()}

    rows = c.evaluate.batch
    score = experiment.score(c.evaluate.draws, c.evaluate.groups, c.seed)
    canvas = jax.ShapeDtypeStruct((c.sample.rows, length), jnp.int32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    return dict(
        train=(experiment.layout.step(experiment.step, state), (state, batch(c.train.batch))),
        evaluate=(score, (state.average, batch(rows, scored=((rows, length), jnp.bool_)))),
        sample=(jax.jit(experiment.sampler(c.sample), donate_argnums=1), (state.average, canvas, key)),
    )


def measure(function, arguments, memory: int | None) -> dict:
    """The facts of one program. A program that the compiler cannot place says by how much."""
    try:
        found = plan.footprint(function, *arguments)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return {"fits": False, "compiler": " ".join(str(error).split())[:400]}
    gib = {
        "arguments, GiB": found.arguments,
        "temporaries, GiB": found.temporaries,
        "output, GiB": found.outputs - found.aliased,
        "code, GiB": found.code,
        "total, GiB": found.total,
    }
    return {
        **{name: value / plan.GIB for name, value in gib.items()},
        "fits": None if memory is None else found.total <= memory,
        "GFLOP (XLA; a loop once)": found.flops / 1e9,
        **found.collectives,
        "largest all-gather, MiB": found.gathered / 2**20,
        "compile, s": found.seconds,
    }


def main(config, workdir):
    """See the module."""
    runs.refuse_run(workdir)
    began = time.monotonic()
    unknown = set(config.programs) - set(PROGRAMS)
    if unknown or not config.programs:
        raise ValueError(f"programs={tuple(config.programs)}: choose from {', '.join(PROGRAMS)}")
    if config.vocab < 2:
        raise ValueError(f"vocab={config.vocab}: must be at least 2, the size of the vocabulary of the training data")
    c = training_config(config.train, config.change)
    if c.parallel != "mesh":
        raise ValueError(f"parallel={c.parallel!r}: only mesh is planned; a pmap chip holds the whole state")
    devices = devices_of(config.topology)
    experiment = build.Experiment(c, config.vocab, c.data.length, tuple(devices))
    compiled = programs(experiment)
    memory = plan.hbm(devices)
    cli.started()

    parameters = networks.parameter_count(compiled["train"][1][0].params)
    forward = networks.forward_flops(experiment.model.config, c.train.batch, experiment.length)
    found = {}
    for name in config.programs:
        cli.log(f"compiling {name} for {len(devices)} x {devices[0].device_kind} ...")
        found[name] = measure(*compiled[name], memory)

    mesh = ", ".join(f"{axis} {size}" for axis, size in experiment.layout.mesh.shape.items())
    facts = {
        "parameters": parameters,
        "topology": f"{config.topology}: {len(devices)} x {devices[0].device_kind}",
        "mesh": mesh,
        "memory of a chip, GiB": None if memory is None else memory / plan.GIB,
        "rows of a chip and step": c.train.batch / experiment.layout.shards,
        "model GFLOP of a chip and step (3 forward passes, all logits)": 3 * forward / len(devices) / 1e9,
        **{f"{name}: {fact}": value for name, facts in found.items() for fact, value in facts.items()},
    }
    names = dict.fromkeys(fact for one in found.values() for fact in one)
    shown = [[fact, *("" if one.get(fact) is None else one[fact] for one in found.values())] for fact in names]
    print(cli.table([(name, value) for name, value in list(facts.items())[:6]]))
    print()
    print(cli.table(shown, ["per chip", *found]))
    fits = [one["fits"] for one in found.values()]
    verdict = "the memory of a device is not known" if None in fits else ("fits" if all(fits) else "DOES NOT FIT")
    report = Report(
        title=f"Plan: {config.train} on {config.topology}",
        summary=f"{parameters:,} parameters over {len(devices)} x {devices[0].device_kind} ({mesh}): {verdict}.",
        command=f"python -m experiments.plan {shlex.join(sys.argv[1:])}",
        config={**cli.to_dict(config), "training": cli.to_dict(c)},
        seed=config.seed,
        wall_seconds=time.monotonic() - began,
        metrics={},
        facts=facts,
    )
    print(f"\n{verdict}")
    cli.log(f"report: {write_report(workdir, report)}")


if __name__ == "__main__":
    cli.run(main, get_config)
