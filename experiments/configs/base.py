"""The fields that every training config has, with their defaults. Not a config by itself: the others start from it."""

from ml_collections import ConfigDict


def base() -> ConfigDict:
    """All fields. A config changes those that make it what it is."""
    return ConfigDict(
        dict(
            seed=0,
            objective="masked_diffusion",  # or autoregressive: the same network with a causal mask, the baseline
            parallel="mesh",  # or pmap
            mesh=dict(data=-1, fsdp=1, tensor=1),  # devices along each axis; -1: all that are left
            distributed=False,  # many hosts: call jax.distributed.initialize() first
            data=dict(
                source="python_docs",  # python_docs | text | tfds | table | answers
                path="",  # of the file or folder (text), or of the CSV file (table)
                name="",  # of the TFDS data set
                feature="text",  # its text feature
                splits=dict(train="", validation="", test=""),  # as TFDS slices, "train[:99%]"; all empty: its own
                data_dir="",  # where TFDS keeps it; empty: its default
                download=False,  # let TFDS prepare it
                vocabulary="characters",  # characters | bytes | path of a Hugging Face tokenizer.json
                length=128,  # L, tokens in a row
                fields=("prompt", "answer"),  # of answers, a file with a JSON object on each line
                between="\n",  # of answers: what stands behind a prompt
                end="\0",  # and behind an answer
                fill=True,  # the rest of a row is the end again, and learnt; else padding
                pack=False,  # several records in a row to train on, of which none sees another; with fill=False
                skip_longer=False,  # records that are longer than a row are left out; else they are an error
                stride=1,  # between the starts of training windows; 1: every crop of the text
                cache_dir="",  # of tokenised data; empty: $MDMJAX_CACHE or ~/.cache/mdmjax
            ),
            network=dict(
                width=256,
                depth=4,
                heads=4,
                kv_heads=0,  # 0: as many as heads
                ff=0,  # hidden width of SwiGLU; 0: 8/3 width
                qk_norm=False,
                time=False,  # adaLN-zero conditioning on t
                tied=False,
                attention="xla",  # xla | cudnn (GPU) | splash (TPU)
                dtype="float32",  # of activations; parameters are float32
                scan=False,  # scan over layers
                remat=False,  # recompute blocks in the backward pass
            ),
            law=dict(
                name="exact_count",  # exact_count | continuous | discrete | importance | clipped | complementary
                # | union | delimiters
                spread="systematic",  # over the batch: iid | stratified | systematic | strata
                strata=0,  # how many, of strata; 0: the square root of the batch
                ways="single",  # a row is hidden in one way | mirror: in two opposite | copies: in independent ones
                copies=2,  # how many, of copies
                schedule="linear",  # linear | cosine | sine | sine_squared | beta | kumaraswamy | polynomial
                # | geometric | tabulated | budget
                schedule_args=(),  # beta, kumaraswamy: (a, b); polynomial: (power,); geometric: (sigma_min, sigma_max);
                # tabulated: 1 - alpha at equally spaced times, such as (0.0, 0.2, 1.0); budget, for sampling: tokens
                # at each step, such as (1, 3, 4); empty: the defaults
                steps=1000,  # T, of discrete
                t_min=0.0,  # the smallest t, of continuous
                eps=1e-3,  # the smallest mask rate, of importance, complementary, union and delimiters
                low=0.3,  # mask rates of clipped, which is biased
                high=0.8,
                bins=12,  # of importance: of its density, equal in log r
                share=0.1,  # of importance: of the base law in the density, which bounds the weights
                refit_every=400,  # of importance: steps between two fits of the density; the first is at step 0
                probe_rows=10,  # of importance: rows of a batch that it is fitted to
                probe_masks=20,  # and masks of each of them, in each bin
                probe="loss",  # what varies least: loss | gradient, which costs a backward pass a mask
                max_weight=0.0,  # of importance: of a rate relative to uniform rates, biased where it acts; 0: any
                often=(),  # of delimiters: ids of tokens that are hidden more often, as vocabulary.json has them
                extra=0.2,  # of delimiters: by how much more, on the mask rate
                delimiters="ratio",  # its weights: ratio, of the whole mask | ht, of each token by itself, biased
            ),
            baseline=dict(  # of the logged loss, by how much of a row is hidden: loss_adjusted, which varies less
                bins=0,  # 8 will do; 0: none
                rate=0.01,  # of its moving means
                coefficient="fitted",  # what is taken off, as a share of the baseline: fitted | one
            ),
            monitor=dict(  # of the variance of training in its parts, on training rows that stay the same
                every=0,  # steps between two measurements, so many that they take 2 % of the work at most; 0: none
                examples=8,  # rows, each with so many rates and so many masks of each
                rates=2,
                masks=2,
                gradient=False,  # of the gradient too, a backward pass a mask
            ),
            readout=dict(
                name="auto",  # dense | packed | auto: packed from 1,000 token values on
                chunk=512,  # rows of logits held at once, of packed
            ),
            train=dict(
                steps=1000,
                batch=32,  # rows of the global batch
                micro=1,  # parts that a batch is cut into, to save memory
                learning_rate=2e-3,
                warmup=50,
                final=0.1,  # learning rate at the end, as a share of the peak
                weight_decay=0.1,
                b1=0.9,
                b2=0.98,
                clip=1.0,  # of the global gradient norm
                muon=0.0,  # peak learning rate of Muon for the kernels of the blocks, 0.02 say; 0: AdamW for all
                average=0.99,  # decay of the moving average that is evaluated; 0: none
                log_every=10,
                evaluate_every=250,
                checkpoint_every=250,
                keep=2,  # newest checkpoints kept, beside the best
            ),
            evaluate=dict(
                batch=32,
                rows=64,  # validation rows during training; all of them at the end
                draws=4,  # masks in a systematic set
                groups=2,  # independent sets, for the Monte Carlo error
                splits=("validation", "test"),  # at the end
                baselines=True,  # n-grams of order 0 to 4
            ),
            sample=sampling(rows=4),
        )
    )


def sampling(rows: int) -> dict:
    """The fields that say how to sample."""
    return dict(
        rows=rows,
        # first_hitting | ancestral | confidence | random_count | left_to_right | threshold | factor | path_planning |
        # remdm | predictor_corrector | informed; auto: exact and fast
        planner="auto",
        schedule="",  # as of the law, with its arguments; empty: the law's own
        schedule_args=(),
        steps=64,  # T, of all but first_hitting, left_to_right, threshold, factor and informed
        rounding="nearest",  # nearest | floor | stochastic: of the counts of confidence, random_count, path_planning
        score="probability",  # probability | margin | entropy: what confidence goes by
        threshold=0.9,  # of threshold: the probability from which tokens are revealed together
        factor=1.0,  # of factor: n tokens are revealed together where all have 1 - p < factor / (n + 1)
        eta=1.0,  # of path_planning: the larger, the more tokens are taken back; 0: none
        remask="cap",  # cap | rescale | confidence: the rate at which remdm takes tokens back; predictor_corrector: cap
        remask_rate=0.02,  # the cap, or the share of the largest rate
        remask_loop=(),  # of remdm, (start, stop, alpha): taken back there alone, as (0.55, 0.05, 0.9); empty: always
        sweeps=1,  # of predictor_corrector and informed: corrections after each step
        redraw=1,  # of informed: tokens that a correction draws anew, at a forward pass for each position
        block=0,  # > 0: blocks of so many positions from left to right, each in its own T steps; 0: the row at once
        capacity=0,  # positions of a row whose logits are made at a call, all where more may change, which costs time
        # and changes nothing; 0: 2 L / T + 3 where what is revealed is known beforehand, else all
        temperature=1.0,
        top_p=1.0,
        guidance=0.0,  # weight of classifier-free guidance by the prompt, at two forward passes a call; 0: none
        prompt="",  # text that every sample starts with
    )


def search() -> ConfigDict:
    """The fields of a schedule search."""
    tenths = tuple(round(0.1 * i, 1) for i in range(1, 11))
    return ConfigDict(
        dict(
            seed=0,
            target="toys",  # toys (by enumeration) | chain | checkpoint
            planners=("ancestral",),  # ancestral | random_count | confidence; each is searched by itself
            steps=(3,),  # T; each is searched by itself
            metric="tv",  # toys: tv | kl; checkpoint: infill | rows | ngram
            family="beta",  # beta | kumaraswamy
            grid=dict(a=tenths, b=tenths),
            rungs=(64, 256, 1024),  # rows that schedules are measured on: all of them, the best, the best of those
            keep=0.25,  # the share that goes on to the next rung
            held_out=1024,  # rows of the comparison
            batch=64,
            temperature=1.0,
            top_p=1.0,
            chain=dict(vocab=8, length=32, noise=0.1),  # x to x + 1 but for `noise`
            checkpoint=dict(
                run="runs/demo",  # the workdir of a `train` run
                which="last",
                split="validation",  # rows of the search
                held_out="test",  # rows of the comparison
                hidden=0.75,  # share of a row that is hidden, for infill
                curve_rows=64,  # rows that the information curve is measured on
            ),
        )
    )


def variant(config: ConfigDict, name: str, **quick) -> ConfigDict:
    """The config itself, or with its `quick` changes (dotted with `__`). ValueError for another variant."""
    if name not in ("", "quick"):
        raise ValueError(f"unknown variant {name!r}: the only one is quick")
    if name == "quick":
        config.update_from_flattened_dict({key.replace("__", "."): value for key, value in quick.items()})
    return config


# Small, of data that every machine has, and on the devices that are there, whatever the config itself asks for.
QUICK = dict(
    data__source="python_docs",
    data__path="",
    data__vocabulary="characters",
    data__length=32,
    data__stride=1,
    mesh__fsdp=1,
    network__width=64,
    network__depth=2,
    network__heads=2,
    network__dtype="float32",
    network__remat=False,
    train__steps=40,
    train__batch=16,
    train__learning_rate=4e-3,
    train__warmup=5,
    train__log_every=5,
    train__evaluate_every=20,
    train__checkpoint_every=20,
    evaluate__batch=32,
    evaluate__rows=32,
    evaluate__splits=("validation",),
)


def orders() -> ConfigDict:
    """All fields of a config of `orders`."""
    return ConfigDict(
        dict(
            seed=0,  # of the data; run s of an arm has seed + s
            seeds=5,
            arms=("plain", "learned"),  # plain: equal weights; learned: after a warm-up; cold: at once; fixed: known
            data=dict(
                source="table",  # bayes | synthetic | table | python_docs
                path="",  # of the CSV file of a table
                test="",  # of a second one that has the test rows; empty: the last tenth of the first
                bins=32,  # of a numeric column, at most
                categories=64,  # a numeric column of at most so many values has no bins
                rows=10_000,  # training rows, of bayes and synthetic
                length=8,  # L, of python_docs
                cache_dir="",  # of tokenised text
            ),
            network=dict(
                name="transformer",  # transformer | linear
                width=48,
                depth=2,
                heads=4,
            ),
            order=dict(
                estimator="order",  # order: random orders, random step; time: random time, masks by their powers
                every_step=False,  # of order: all L steps of each, L denoiser rows a draw
                t_min=1e-3,  # of time
                least=2.0,  # of time: weights are raised together until the smallest is this, which changes no order
                power=1.0,  # of time: t = u^power, which is to multiply all weights by it
                reconstruct=False,  # of time: another denoiser call scores what is left out below t_min
                samples=2,  # K, draws of a row
                baseline=True,  # leave-one-out
                warmup=1000,  # steps before the order of `learned` begins to learn
                rate=0.01,  # learning rate of the log-weights, by Adam
                l2=1e-3,  # nats a row for each squared log-weight
                entropy=0.0,  # bonus in nats a row for each nat of the order's entropy; up to 12 positions
                groups=(),  # of each position, the number of the weight that it has; empty: one each
                known=(),  # order of `fixed`, the first position to be revealed first
                starts=1,  # runs of each seed that learns; the best on validation counts
                kick=1.0,  # standard deviation of what other starts add to the log-weights when they begin to learn
            ),
            train=dict(
                steps=3000,
                batch=128,
                learning_rate=1e-3,
                warmup=50,
                final=0.1,  # learning rate at the end, as a share of the peak
                weight_decay=0.01,
                b1=0.9,
                b2=0.98,
                clip=1.0,
                average=0.99,  # decay of the moving average that is evaluated
                log_every=50,
                evaluate_every=250,
                checkpoint_every=1000,
            ),
            evaluate=dict(
                batch=256,
                rows=512,  # validation rows during training
                test_rows=0,  # at the end; 0: all
                draws=4,  # hidden sets, of systematic sizes
                groups=2,
            ),
            sample=dict(rows=1000),  # judged by Shape and Trend (tables), or under an n-gram (text)
        )
    )


def variance() -> ConfigDict:
    """All fields of a config of `variance`."""
    return ConfigDict(
        dict(
            seed=0,
            checkpoint=dict(
                run="",  # folder of a run of `train`; empty: the model below is trained first, in the workdir
                autoregressive="",  # of an autoregressive one beside it; empty: none, or trained too
                which="last",  # last | best | a step
            ),
            model=base(),  # as of `train`, where there is no run
            path="",  # a text file or folder, or a CSV file for a model of tables; empty: the data of the run
            split="train",  # of the run's data, whose rows are the examples
            # A row is hidden by: base (uniform rates), clipped (biased), p_pots (fitted to the loss), p_pots_gradient,
            # exact_count, complementary, isad (hides tokens `often` more often); after a +: mirror or copies, two ways.
            laws=(
                "base", "base+copies", "base+mirror", "complementary", "p_pots", "p_pots_gradient", "p_pots+mirror",
                "exact_count", "exact_count+mirror", "clipped",
            ),
            spreads=("base", "p_pots", "exact_count"),  # of these: laws whose rates are spread over a batch, each way
            groups=(  # of parameters: a name, and an expression; the first found in a path counts; none: the loss alone
                ("embeddings", "embed|position|readout"),
                ("attention", "(query|key|value|qkv|out)/"),
                ("feedforward", "(gate|up|down)/"),
                ("norms", "."),
            ),
            examples=32,  # N; each has R rates, and each of those M masks
            rates=4,
            masks=4,
            eps=1e-3,  # the smallest mask rate of the laws that have one
            often=(),  # ids of tokens, which isad hides more often
            bins=12,  # of a fitted density
            share=0.1,  # of the base law in it
            max_weight=0.0,  # of a rate under it, relative to base, biased where it acts; 0: any
            probe_rows=16,  # that it is fitted to, which are no examples
            probe_masks=20,
            batch=16,  # rows of a batch over which rates are spread
            replicates=32,  # draws of that batch
        )
    )  # fmt: skip


def study() -> ConfigDict:
    """All fields of a config of `variance_study`."""
    return ConfigDict(
        dict(
            seed=0,
            seeds=20,  # runs of each arm, as one program
            task="text",  # text | sums | markov
            data=dict(
                length=32,  # L, of text and markov
                digits=2,  # of the numbers of sums
                states=4,  # of the chain of markov
                rows=4000,  # of sums and markov to learn from; all sums are 100^digits
                cache_dir="",  # of tokenised text
            ),
            network=dict(
                name="transformer",  # transformer | linear, one layer for each position, which has no other field
                width=64, depth=2, heads=4, qk_norm=True,
            ),
            # As the laws of `variance`, and maybe @iid | @stratified | @systematic | @strata: how the rates of a batch
            # are spread; isad: tokens of the format hidden more often; syrm: tokens of the prompt hidden too (biased);
            # autoregressive: another network of that size. The first is what all are compared with.
            arms=(
                "base", "base@strata", "base@systematic", "base+copies", "base+mirror", "complementary", "isad",
                "p_pots", "p_pots_gradient", "p_pots+mirror", "exact_count", "exact_count@systematic",
                "exact_count+mirror", "clipped", "autoregressive",
            ),
            law=dict(
                eps=1e-3,  # the smallest mask rate of the laws that have one
                bins=12,  # of a fitted density
                share=0.1,  # of the base law in it
                refit_every=400,
                extra=0.2,  # of the prompt, for syrm
                probe_rows=4,  # of a batch, that it is fitted to
                probe_masks=4,  # and masks of each of them, in each bin
            ),
            train=dict(
                steps=1000,
                batch=16,  # denoiser calls of a step
                optimizer="adamw",  # adamw | sgd: the learning rate goes down linearly
                learning_rate=6e-3,
                warmup=40,
                final=0.1,  # learning rate at the end, as a share of the peak
                weight_decay=0.1,
                b1=0.9,
                b2=0.98,
                clip=1.0,
                average=0.99,  # decay of the moving average that is evaluated
                evaluate_every=50,
            ),
            evaluate=dict(
                rows=256,  # held out; 0: all
                batch=64,
                draws=4,  # masks in a systematic set; 0: all masks, exactly, of rows of at most 10 tokens
                groups=2,
            ),
        )
    )  # fmt: skip


# A made-up table, which needs no file.
QUICK_ORDERS = dict(
    seeds=2, data__source="synthetic", data__path="", data__test="", data__rows=2000, network__width=32,
    network__depth=1, network__heads=2, order__warmup=30, order__rate=0.05, train__steps=60, train__batch=32,
    train__learning_rate=4e-3, train__warmup=5, train__log_every=20, train__evaluate_every=20,
    train__checkpoint_every=30, evaluate__batch=128, evaluate__rows=128, evaluate__test_rows=256, sample__rows=256,
)  # fmt: skip
