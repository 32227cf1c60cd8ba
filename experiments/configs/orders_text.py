"""The order of the positions of a short window of text.

    python -m experiments.orders --config=experiments/configs/orders_text.py --workdir=runs/orders-text

5 minutes on 2 CPU cores; `:quick` takes a minute. Test bound of windows of 8 characters over five seeds: `plain` 18.585
nats, `learned` 18.549, a paired difference of -0.037 with a standard error of 0.027 over seeds and 0.020 over rows:
little if anything, for windows start anywhere, and no position is a better first one. Samples cost 6.615 bits a
character under an order-4 n-gram for `plain` and 6.595 for `learned`, drawn in its own order; in random orders the same
network is 0.051 worse, with a standard error of 0.019.
"""

from experiments.configs.base import QUICK_ORDERS, orders, variant


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    config = orders()
    config.data.update(source="python_docs", length=8)
    config.order.update(warmup=400, rate=0.02)
    config.train.update(steps=1200, batch=64, evaluate_every=200, checkpoint_every=600)
    config.evaluate.test_rows = 2000
    config.sample.rows = 2000
    return variant(config, name, **QUICK_ORDERS | dict(data__source="python_docs"))
