"""What the configs of `prefer` and `reinforce` have in common: a start that is fine-tuned, and how its arms train."""


def fine_tuned(start: int, steps: int, learning_rate: float, warmup: int) -> dict:
    """The groups of fields, by the steps of the start, and what the arms are trained with."""
    return dict(
        start=dict(
            steps=start,
            batch=64,
            learning_rate=4e-3,
            muon=0.02,  # peak learning rate of Muon for the kernels of the blocks; 0: AdamW for all
            warmup=40,
            final=0.1,
            average=0.99,  # decay of the moving average that is the start
        ),
        network=dict(
            name="transformer",  # transformer | linear, in which each visible token adds its logits
            width=64,
            depth=2,
            heads=4,
            qk_norm=True,
        ),
        # devices along each axis; data=-1: of those that are left, as many as divide the batch
        mesh=dict(data=-1, fsdp=1, tensor=1),
        train=dict(
            steps=steps,
            batch=16,  # pairs, or prompts
            optimizer="adamw",  # adamw | sgd: the learning rate goes down linearly; of the start too
            learning_rate=learning_rate,
            warmup=warmup,
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
