"""The fields of trained models in a config of `expressivity`, with what each of them means. Not a config by itself."""

from typing import Any


def trained() -> dict[str, Any]:
    """All fields of the group `trained`."""
    # Words of the lengths of `mix` are learned from by turns, `length` being the longest, at any place of a circuit for
    # twice as long words (parts) or always at its beginning; `lengths` are judged. every: all elements are symbols, not
    # only the automaton's. ff: hidden width of SwiGLU. muon: learning rate of the blocks' kernels; 0: AdamW.
    parity = dict(
        length=64, mix=(4, 8, 16, 32, 64), parts=True, lengths=(16, 32, 48, 64, 128), every=False, width=32, depth=1,
        heads=2, ff=64, batch=16, steps=2400, learning_rate=3e-3, muon=0.02,
    )  # fmt: skip
    return dict(
        seeds=5,  # runs of each arm, as one program
        tasks=("parity", "s3", "a5"),
        arms=("log_steps", "one_step", "looped", "chain_of_thought"),  # and looped_answer, which learns the root alone
        adamw=("looped", "looped_answer", "chain_of_thought"),  # arms without Muon, with which these learn less
        target=0.99,  # share of right answers, to which steps and seconds are counted
        keep=False,  # checkpoints of arms that are done
        parity=parity,
        s3=parity | dict(length=32, mix=(4, 8, 16, 32), lengths=(8, 16, 24, 32, 64), steps=3000),
        a5=parity
        | dict(
            length=16,
            mix=(2, 4, 8, 16),
            lengths=(4, 8, 12, 16, 32),
            every=True,
            width=64,
            ff=256,
            batch=32,
            steps=5000,
        ),
        train=dict(
            # Each word has shares of symbols of its own, some words few symbols. 0: all are alike likely, and then no
            # factor alone tells anything about a product of a group, so that learning does not begin.
            uneven=2.0,
            warmup=50,
            final=0.1,  # learning rate at the end, as a share of the peak
            weight_decay=0.0,
            b1=0.9,
            b2=0.99,
            clip=1.0,
            average=0.99,  # decay of the moving average that is evaluated
            log_every=20,
            evaluate_every=200,
        ),
        evaluate=dict(
            rows=512,  # words of each length
            watched=64,  # words during training
            batch=64,  # at a time
            chain=4,  # chain_of_thought, which takes N calls, has so many times fewer
        ),
    )
