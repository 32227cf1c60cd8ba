"""The fields of a config of `anyprocess`, with what each of them means."""

from ml_collections import ConfigDict


def anyprocess() -> ConfigDict:
    """All fields of a config of `anyprocess`."""
    return ConfigDict(
        dict(
            seed=0,
            seeds=1,  # runs of each arm, as one program
            task="sudoku",  # parity | sudoku | mincut | dyck | text
            arms=("any_process", "any_order", "autoregressive"),
            data=dict(
                seed=0,  # of the problems
                rows=300,  # problems to learn from
                problems=256,  # of each test
                held_out=32,  # of sudoku: of those, whose tuples the policy is measured on step by step
                terminal=1,  # of sudoku, mincut: tuples, for each problem, that teach to stay at its end
                box=2,  # of Sudoku: 2 for 4x4, 3 for 9x9
                givens=(4, 8),
                givens_judged=(4, 8),  # of the tests
                fewest=True,  # the search takes the cell with the fewest candidates; else the first empty one
                max_atoms=500,  # of a search; a puzzle that takes more is left out
                together=0.0,  # share of rows that ask for many cells of a state at once, and for no decision
                alone=1.0,  # share that is kept of the tuples that ask for one cell, which those rows teach too
                relations=True,  # heads of attention along rows, columns and boxes; of mincut: equal tokens, and tuples
                sums=0,  # heads of each of these that add up what they see; 0: one each, that attends
                path="",  # of a file of further puzzles to be judged on
                of_file=64,  # puzzles of each stratum
                nodes=(64, 200, 1000),  # their strata, by the nodes of a solver
                most_nodes=1000,
                lengths=(2, 10, 100, 1000, 10_000),  # of parity: bits of the tests
                most=20,  # bits that the others learn from; of dyck: letters
                beyond=(40, 100),  # and that they are judged on
                questions=256,
                nodes_of=(4, 6),  # of mincut: nodes of a graph to learn from
                judged=(4, 5, 6, 7, 8),
                density=0.4,
                hops=True,  # a path is marked edge by edge
                generators=2,  # of dyck
                letters=(0, 2, 4, 6, 8, 12, 20),  # of the words that are drawn
                length=64,  # of text: letters of a row
                stride=4,  # from one row to the next
                faults=0.1,  # rate of wrong and missing letters, and of masks
                rates=(1.0, 1.0, 0.3),  # of mixed: largest rates of wrong and missing letters; of surplus masks
                corruption="mixed",  # mixed | separate: four passes | released: with labels of delete that say nothing
                cache_dir="",  # of tokenised text
                limit=2000,  # steps of the policy; parity has 512 and text 8
            ),
            network=dict(width=64, depth=2, heads=4, ff=0, loops=1, qk_norm=True),  # ff=0: 8/3 of the width
            # Of the other arms; width=0: as above. batch=0: rows that cost what a batch of the policy costs.
            baseline=dict(width=0, depth=2, heads=4, ff=0, loops=1, qk_norm=True, batch=0),
            loss=dict(remask=1.0, insert=1.0, delete=1.0, pos_weight=(1.0, 1.0, 1.0)),
            decode=dict(thresholds=(0.5, 0.5, 0.5), draw=False, least=0.0, single=False),
            train=dict(
                steps=2000,
                batch=64,
                parts=1,  # a batch is one of so many parts of rows sorted by length
                learning_rate=1e-3,
                warmup=100,
                final=0.05,  # learning rate at the end, as a share of the peak
                weight_decay=0.01,
                b1=0.9,
                b2=0.99,
                clip=1.0,
                muon=0.0,  # peak learning rate of Muon for the kernels of the blocks; 0: AdamW for all
                average=0.99,  # decay of the moving average that is evaluated
                log_every=20,
                evaluate_every=500,
            ),
            evaluate=dict(
                batch=128,  # held-out rows at a time
                batches=16,  # of them
                slots=64,  # problems at a time
                failures=16,  # that are followed to the first step that is not the teacher's
            ),
        )
    )  # fmt: skip
