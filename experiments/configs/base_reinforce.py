"""The fields of a config of `reinforce`, with what each of them means."""

from ml_collections import ConfigDict

from experiments.configs.base_fine_tuned import fine_tuned


def reinforce() -> ConfigDict:
    """All fields of a config of `reinforce`."""
    groups = fine_tuned(start=700, steps=300, learning_rate=1e-3, warmup=10)
    return ConfigDict(
        dict(
            **groups,
            seed=0,
            seeds=3,  # runs of each arm, as one program
            arms=("diffu_grpo", "coupled_grpo", "unigrpo", "espo", "gdpo", "spg", "wd1"),
            task="sums",  # sums | workings: sums with their working | countdown: numbers and a target
            data=dict(
                digits=2,  # of the numbers of the sums
                slips=0.5,  # share of the sums that the start reads with a slip
                numbers=3,  # of countdown
                rows=4000,  # problems that the start is fine-tuned on
                prompts=2000,  # other problems, whose answers are rewarded
                judged=512,  # other problems still
            ),
            reward=dict(
                group=8,  # answers of a prompt
                temperature=1.0,  # of their tokens
                renew=1,  # steps after which it is the present policy again that writes the answers; 1: always
                scaled=True,  # advantages are divided by their standard deviation
                draws=2,  # of each answer, for unigrpo, espo, gdpo and spg
                prompt=0.15,  # of diffu_grpo and wd1: the share of the prompt that is hidden
                clip=0.2,  # of the ratio
                kl=0.01,  # weight of the distance from the start; 0: it is not asked. spg and wd1 have none
            ),
        )
    )
