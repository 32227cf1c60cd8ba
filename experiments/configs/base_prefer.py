"""The fields of a config of `prefer`, with what each of them means."""

from ml_collections import ConfigDict

from experiments.configs.base_fine_tuned import fine_tuned


def prefer() -> ConfigDict:
    """All fields of a config of `prefer`."""
    groups = fine_tuned(start=700, steps=150, learning_rate=3e-4, warmup=10)
    # of `train`, whose averaged parameters are policy and reference; else they are fine-tuned here
    groups["start"]["run"] = ""
    return ConfigDict(
        dict(
            **groups,
            seed=0,
            seeds=5,  # runs of each arm, as one program
            # RATESxMASKS draws of each bound; +apart: the reference has draws of its own; +iid, +stratified: how the
            # rates of an answer are spread, systematic unless said; +together: both answers have the same rates;
            # fine_tuning: on the preferred answers alone, for as many steps and calls as the first arm's policy has.
            arms=("8x1", "fine_tuning"),
            # sums: right ones against slips of the carry | markov: rows of two chains | pairs: of a file of JSON lines
            task="sums",
            data=dict(
                digits=2,  # of the numbers of the sums
                rows=4000,  # sums that the start is fine-tuned on
                slips=0.5,  # share of them that have a slip
                pairs=2000,  # other sums, to prefer the right answer on
                judged=512,  # other sums still
                states=4,  # of markov, whose rows have `length` of them
                length=8,
                path="",  # of pairs: a file with prompt, chosen and rejected on each line
                fields=("prompt", "chosen", "rejected"),
                held_out=64,  # of its prompts, with all their pairs, to be judged on
            ),
            prefer=dict(
                beta=1.0,
                sft=0.05,  # weight of the negative ELBO of the preferred answer
                law="exact_count",  # exact_count | continuous
                eps=1e-3,  # the smallest time of continuous, below which its bound leaves something out
                fixed=False,  # a pair has the same draws at every step, and the reference's bounds are kept
                two_pass=True,  # memory that does not grow with the draws
                lora=0,  # rank of the adapters that are trained in place of the network; 0: the network is
            ),
            evaluate=dict(
                batch=128,
                pairs=64,  # held-out pairs on which the score and its variance are measured
                repeats=32,  # draws of each for it
            ),
        )
    )
