"""The planner that a config's strings and numbers stand for."""

import dataclasses

from ml_collections import ConfigDict

from experiments.configs import base
from experiments.laws import choose
from mdmjax import sampling
from mdmjax.base import Planner, Schedule

SCORES = dict(probability=None, margin=sampling.scores.margin, entropy=sampling.scores.negative_entropy)


def _remdm(schedule: Schedule, steps: int, c: ConfigDict) -> Planner:
    rates = dict(cap=sampling.Cap, rescale=sampling.Rescale, confidence=sampling.Rescale)
    sigma, loop = choose(c.remask, "sample.remask", rates)(c.remask_rate), tuple(c.remask_loop)
    if len(loop) not in (0, 3):
        raise ValueError(f"sample.remask_loop={loop}: three numbers are needed, start, stop and alpha, or none")
    return sampling.ReMDM(schedule, steps, sigma, c.remask == "confidence", sampling.Loop(*loop) if loop else None)


# Of a schedule, a number of steps and a `sample` group of fields.
PLANNERS = dict(
    first_hitting=lambda schedule, steps, c: sampling.FirstHitting(schedule),
    left_to_right=lambda schedule, steps, c: sampling.LeftToRight(schedule),
    ancestral=lambda schedule, steps, c: sampling.Ancestral(schedule, steps),
    confidence=lambda schedule, steps, c: sampling.Confidence(
        schedule, steps, score=choose(c.score, "sample.score", SCORES)
    ),
    random_count=lambda schedule, steps, c: sampling.RandomCount(schedule, steps),
    threshold=lambda schedule, steps, c: sampling.Threshold(c.threshold, schedule),
    factor=lambda schedule, steps, c: sampling.Factor(c.factor, schedule),
    path_planning=lambda schedule, steps, c: sampling.PathPlanning(schedule, steps, c.eta),
    remdm=_remdm,
    predictor_corrector=lambda schedule, steps, c: sampling.PredictorCorrector(
        schedule, steps, c.sweeps, sampling.Cap(c.remask_rate)
    ),
    informed=lambda schedule, steps, c: sampling.InformedCorrector(sampling.FirstHitting(schedule), c.redraw, c.sweeps),
)


def planner(
    name: str, field: str, schedule: Schedule, steps: int, dtype: str = "float32", c: ConfigDict | None = None
) -> Planner:
    """The planner of that name for a network of that type. ValueError that names the field for any other name.

    `c` is a `sample` group of fields, for those that planners have of their own: the defaults if not given.
    """
    made = choose(name, field, PLANNERS)(schedule, steps, c or ConfigDict(base.sampling(1)))
    if hasattr(made, "tie") and dtype == "bfloat16":
        made = dataclasses.replace(made, tie=2.0**-5)  # above the rounding of its probabilities
    return made
