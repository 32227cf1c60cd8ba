"""The fields of a config of `reinforce`, with what each of them means."""

from ml_collections import ConfigDict


def reinforce() -> ConfigDict:
    """All fields of a config of `reinforce`."""
    return ConfigDict(
        dict(
            seed=0,
            seeds=3,  # runs of each arm, as one program
            arms=("diffu_grpo", "coupled_grpo", "unigrpo", "espo", "gdpo", "spg", "wd1"),
            task="workings",  # workings: sums with their working | countdown: numbers and a target
            data=dict(
                digits=2,  # of workings: of the numbers of the sums
                numbers=3,  # of countdown
                rows=4000,  # problems that the start is fine-tuned on
                prompts=2000,  # other problems, whose answers are rewarded
                judged=512,  # other problems still
            ),
            start=dict(
                steps=450,
                batch=64,
                learning_rate=4e-3,
                muon=0.02,  # peak learning rate of Muon for the kernels of the blocks; 0: AdamW for all
                warmup=40,
                final=0.1,
                average=0.99,  # decay of the moving average that is the start
            ),
            network=dict(name="transformer", width=64, depth=2, heads=4, qk_norm=True),
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
            # devices along each axis; data=-1: of those that are left, as many as divide the batch
            mesh=dict(data=-1, fsdp=1, tensor=1),
            train=dict(
                steps=100,
                batch=16,  # prompts
                optimizer="adamw",  # adamw | sgd: the learning rate goes down linearly; of the start too
                learning_rate=2e-4,
                warmup=5,
                final=0.1,
                weight_decay=0.0,
                b1=0.9,
                b2=0.98,
                clip=1.0,
                average=0.9,
                log_every=1,
                evaluate_every=25,
            ),
        )
    )
