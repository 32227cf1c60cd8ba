"""The loop by itself, with nothing under it: in which order it does things, and what it does about signals and NaN."""

import os
import signal

import numpy as np
import pytest

from mdmjax.training import Checkpoints, NonFiniteLoss, Plan, train

STEPS = 4


class Number:
    """A metric that is on the device until somebody asks for its value."""

    def __init__(self, log, step, value=1.0):
        self.log, self.step, self.value = log, step, value

    def __float__(self):
        self.log.append(f"fetch {self.step}")
        return self.value


class Fake(Checkpoints):
    """Layout, batches and checkpoints in one, which note what is asked of them. `at` are actions by the moment."""

    def __init__(self, losses=None, at=None, bound=1.0):
        self.log, self.losses, self.at, self.bound = [], losses or {}, at or {}, bound
        self.written, self.monitored, self.also, self.rows = [], None, {}, {}

    def note(self, moment):
        self.log.append(moment)
        self.at.get(moment, lambda: None)()

    def run(self, **plan):
        return train(
            plan=Plan(**dict(steps=STEPS, evaluate_every=STEPS, checkpoint_every=STEPS) | plan), make_state=lambda: 0,
            step=self.dispatch, layout=self, batches=self, checkpoints=self, evaluate=self.evaluate,
            write=self.write, monitor=self.monitor,
        )  # fmt: skip

    def write(self, step, **numbers):
        self.written.append((step, numbers))

    def monitor(self, step, state):
        if step != self.monitored:
            return None
        self.note(f"measure {step}")
        return lambda: {"variance": float(Number(self.log, f"of {state}", 2.5))}

    def dispatch(self, state, batch):
        number = state + 1
        self.note(f"dispatch {number}")
        loss = Number(self.log, number, self.losses.get(number, 1.0))
        return number, {"loss": loss, "grad_norm": 1.0} | self.also

    def evaluate(self, state):
        self.note(f"evaluate {state}")
        return self.bound

    # ---- layout
    init = staticmethod(lambda make: make())
    shardings = staticmethod(lambda make: None)
    put = shared = local = staticmethod(lambda x: x)
    step = staticmethod(lambda function, state: function)

    # ---- batches of two rows
    count = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.count += 1
        return {"ids": np.arange(2 * self.count - 2, 2 * self.count)} | self.rows

    def get_state(self):
        return self.count

    # ---- checkpoints
    saved = ()

    def restore(self, abstract, say, step):
        return None

    def save(self, number, state, meta, bound):
        self.saved = (*self.saved, number)
        self.note(f"save {number}")

    def steps(self):
        return list(self.saved)

    def wait(self):
        self.note("wait")


def test_metrics_are_fetched_when_the_next_step_is_on_its_way():
    fake = Fake()
    assert fake.run().finished
    assert fake.log == [
        *("dispatch 1", "dispatch 2", "fetch 1", "dispatch 3", "fetch 2", "dispatch 4", "fetch 3"),
        *("fetch 4", "evaluate 4", "save 4", "wait"),
    ]


@pytest.mark.parametrize("last", [False, True])
def test_what_is_measured_is_fetched_with_the_metrics_of_its_step(last):
    """Once the next step is on its way; before anything is saved, so that a resumed run lacks no row."""
    fake = Fake()
    fake.monitored = 4 if last else 2
    assert fake.run(log_every=3).finished
    place = fake.log.index(f"measure {fake.monitored}")
    after = ["dispatch 3", "fetch 2", "fetch of 2", "dispatch 4"]
    assert fake.log[place + 1 :][:4] == (["fetch 4", "fetch of 4", "evaluate 4", "save 4"] if last else after)
    assert [row for row in fake.written if "variance" in row[1]] == [(fake.monitored, {"variance": 2.5})]


def test_a_step_is_checked_before_it_is_saved():
    fake = Fake(losses={2: np.nan})
    with pytest.raises(NonFiniteLoss, match=r"loss of step 2 is nan \(examples 2\.\.3\).*checkpoint is step 1"):
        fake.run(checkpoint_every=1)
    assert fake.saved == (1,)


@pytest.mark.parametrize("kind", ["example", "pair", "the pair on line"])
def test_the_one_to_blame_is_named(kind):
    fake = Fake(losses={2: np.nan})
    fake.also = {"spoiled": 17}
    fake.rows = {"pair": np.array([17, 4])} if "pair" in kind else {}
    fake.rows |= {"line": np.array([17, 4])} if "line" in kind else {}
    with pytest.raises(NonFiniteLoss, match=rf"nan \(examples 2\.\.3, first that of {kind} 17\); the last good"):
        fake.run(checkpoint_every=1)
    assert all("spoiled" not in numbers for _, numbers in fake.written)


def test_a_bound_that_is_not_finite_stops_the_run():
    fake = Fake(bound=np.inf)
    with pytest.raises(NonFiniteLoss, match=r"bound after step 2 is inf \(examples 2\.\.3\).*no checkpoint yet"):
        fake.run(evaluate_every=2)
    assert fake.saved == ()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", ["dispatch 2", "dispatch 4", "evaluate 4", "save 4", "wait"])
def test_a_signal_is_never_lost(number, moment):
    def unexpected(*_):
        raise AssertionError("the loop was not listening")

    before = signal.signal(number, unexpected)
    try:
        fake = Fake(at={moment: lambda: os.kill(os.getpid(), number)})
        outcome = fake.run()
        assert signal.getsignal(number) is unexpected
    finally:
        signal.signal(number, before)
    last = 2 if moment == "dispatch 2" else STEPS
    assert (outcome.finished, outcome.state, fake.saved) == (False, last, (last,))
