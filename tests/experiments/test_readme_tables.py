"""README's numbers are those of the kept reports."""

import json
import re
import subprocess

import numpy as np
import pytest

from experiments import cli, results, tables
from mdmjax import variance


def test_readme_agrees_with_results():
    text = tables.README.read_text()
    assert tables.rebuild(text) == text
    kept = [name for name, table in tables.TABLES.items() if any(tables.RESULTS.glob(table.files))]
    assert [name for name in kept if f"<!-- table:{name} -->" not in text] == []


KEPT = {
    "training/demo": "demo_python_docs",
    **{f"orders/{name}": f"orders_{name}" for name in ("bayes", "adult", "magic", "text")},
    **{"schedules/toy": "schedules_toy", "schedules/search-chain": "schedules_chain"},
    **{"variance/demo": "variance_demo", "studies/sums": "variance_sums", "studies/text": "variance_text"},
    "studies/markov": "variance_markov",
    **{f"anyprocess/{name}": name for name in ("parity", "sudoku4", "sudoku9", "sudoku9_baselines", "dyck", "mincut")},
    "anyprocess/text_selfcorrect": "text_selfcorrect",
    **{f"prefer/{name}": f"prefer_{name}" for name in ("arithmetic", "ablation")},
    **{f"crossbar/{name}": name for name in ("manhattan_law", "bell_weights", "digits", "diffusion_model")},
    **{"expressivity/constructions": "expressivity", "expressivity/trained": "expressivity_trained"},
    "fine_tuning/gsm8k": "sft_gsm8k",
    **{f"reinforce/{name}": f"reinforce_{name}" for name in ("arithmetic", "countdown")},
    **{"schedules/search-text": "schedules_text", "schedules/search-text-samples": "schedules_samples"},
}


def kept(folder):
    return json.loads((tables.RESULTS / folder / "report.json").read_text())


@pytest.mark.parametrize("folder", KEPT)
def test_a_kept_report_is_of_its_config(folder):
    """But for the paths of files, and fields that the config did not have yet."""
    report, config = kept(folder), cli.load_config(f"experiments/configs/{KEPT[folder]}.py")
    then, now = cli.flatten(report["config"]), cli.flatten(cli.to_dict(config))
    shared = then.keys() & now.keys() - {"data.path", "data.test", "checkpoint.run"}
    if folder.startswith("expressivity/"):  # a study reads the group of its name alone
        shared = {key for key in shared if key.startswith(f"{report['config']['study']}.")} | {"seed"}
    assert len(shared) > 8 and {key: then[key] for key in shared} == {key: now[key] for key in shared}
    assert report["environment"]["dirty"] is False


def test_kept_results_come_from_commits_of_this_history():
    def git(*arguments):
        return subprocess.run(["git", *arguments], cwd=tables.ROOT, capture_output=True, text=True)

    if git("rev-parse", "--is-shallow-repository").stdout.strip() != "false":
        pytest.skip("the history is not here")
    commits = {str(p): json.loads(p.read_text())["environment"]["commit"] for p in tables.RESULTS.rglob("*.json")}
    gone = {p: c for p, c in commits.items() if git("merge-base", "--is-ancestor", c, "HEAD").returncode}
    assert len(commits) > 10 and gone == {}


def test_kept_results_of_crossbars_are_what_the_readme_says_of_them():
    number = lambda row, key: float(row[key].removesuffix(" (rises)").split(" ± ")[0])
    law = kept("crossbar/manhattan_law")["facts"]["law"]
    assert number(law[0], "R2, NF by S") > 0.999 > 0.1 > number(law[0], "R2, NF by mean distance")
    assert 0.85 < number(law[1], "R2, NF by S") < 0.95 and number(law[1], "R2, lost current by Q") > 0.99999
    assert not any(row["underestimates"] for row in law)

    bell = {
        (r["weights"], r["layout"], r["on/off"], r["of"]): r for r in kept("crossbar/bell_weights")["facts"]["mapping"]
    }
    planes = "planes, 8 outputs"
    fall = lambda law, on_off, of="NF", name="full": number(bell[law, planes, on_off, of], f"{name}, %")
    assert fall("laplace", "Infinity") <= -45 and fall("gauss", "Infinity") <= -35
    for law in ("laplace", "gauss"):
        assert fall(law, 10.0) < -25 and bell[law, planes, 10.0, "MAC error"]["full, %"].endswith("(rises)")
    assert all(number(row, "sorted, %") < 0 for row in bell.values())

    digits = kept("crossbar/digits")
    rows = {(r["r / R_on"], r["mapping"]): r for r in digits["facts"]["deployments"]}
    lost = lambda mapping, how: number(rows[1e-3, mapping], f"{how} - digital, points")
    assert lost("conventional", "raw") < -3 and lost("full", "calibrated") > -1 and digits["config"]["seeds"] == 5
    assert lost("full", "raw") < -3 and lost("conventional", "calibrated") < -2

    model = kept("crossbar/diffusion_model")
    assert round(model["metrics"]["digital bound"]["mean"], 2) == 3.07
    rows = {(r["r / R_on"], r["mapping"]): r for r in model["facts"]["deployments"]}
    lost = lambda mapping, how: number(rows[5e-4, mapping], f"{how} - digital, bits/char")
    assert lost("full", "raw") > lost("conventional", "raw")
    assert 6.5 < lost("conventional", "calibrated") / lost("full", "calibrated") < 7.5


def test_kept_constructions_are_what_the_readme_says_of_them():
    report = kept("expressivity/constructions")
    facts, metrics = report["facts"], report["metrics"]
    of = lambda start: next(rows for name, rows in facts.items() if name.startswith(start))

    costs = next(row for row in of("steps and cells") if row["N"] == 4096)
    number = lambda way, letter: int(re.search(rf"{letter} ([\d,]*\d)", costs[way])[1].replace(",", ""))
    steps, cells = ({way: number(way, letter) for way in costs if way != "N"} for letter in "TP")
    assert {way for way in steps if "again" in costs[way]} == {"Hillis-Steele", "Hillis-Steele, copied"}
    assert steps["tree"] == steps["level-expanded scan"] == steps["Hillis-Steele"] == 12
    assert steps["two-sweep scan"] == 23 and steps["chain of thought"] == 4096
    times_its_cells = [cells[f"{way} scan"] / cells["tree"] for way in ("level-expanded", "two-sweep")]
    np.testing.assert_allclose(times_its_cells, [11, 3], atol=0.05)  # whole numbers in the text
    assert facts["runs whose counted steps and cells are those of the accounting"] == "216 of 216"
    assert all(row["words with errors"] == 0 for row in of("on integers") + of("on the engine"))

    elements = {row["automaton"]: row["elements"] for row in of("on integers")}
    slower = {(r["automaton"], r["N"]): float(r["chain of thought / tree, time"]) for r in of("on the engine")}
    mean = lambda name: metrics[f"{name}, N=4096: time of the chain of thought, in that of the tree"]["mean"]
    assert min(f(name) for name in ("parity", "s3") for f in (mean, lambda name: slower[name, 4096])) > 250
    assert 18 < mean("a5") < 24 and 18 < slower["a5", 4096] < 24 and slower["a5", 64] < 1 and elements["a5"] == 60


def test_kept_orders_of_writing_are_what_the_readme_says_of_them():
    report = kept("expressivity/constructions")
    orders, facts = report["config"]["constructions"]["orders"], report["facts"]
    assert [orders[key] for key in ("automaton", "independent", "length", "rows", "words")] == ["s3", 8, 16, 4000, 500]
    title = "right answers by planner and steps, s3, 16 symbols (share; in brackets: valid orders)"
    table = {row["planner"]: {int(k[2:]): v for k, v in row.items() if k[:2] == "T="} for row in facts[title]}
    guess = float(table.pop("the guess alone: the identity")[15])
    error = np.sqrt(guess * (1 - guess) / orders["words"])
    for planner, row in table.items():
        right = {t: float(cell.split()[0]) for t, cell in row.items()}
        valid = {t: cell.split()[1] for t, cell in row.items()}
        first = {"dependency": 4, "by level": 4, "confidence": 15, "right to left": 15}.get(planner, 16)
        assert max(right) == 15 and all((right[t] == 1, valid[t] == "(1)") == (t >= first,) * 2 for t in row), planner
        assert all(valid[t] == "(0)" for t in row if t < first), planner
        if first > 4:  # two standard errors of a guess
            assert all(abs(right[t] - guess) < 2 * error for t in row if t < first), planner


def test_kept_models_of_word_problems_are_what_the_readme_says_of_them():
    report = kept("expressivity/trained")
    facts, seeds = report["facts"], report["config"]["trained"]["seeds"]
    rows = {(row["task"], row["arm"]): row for row in facts["trained models"]}
    answers = lambda task, arm: facts[f"{task}, {arm}: answers at N={rows[task, arm]['N']} by seed, %"]
    mean = lambda cell: float(cell.split(" ± ")[0])
    by_length = {
        (task, row["arm"]): [mean(cell) for name, cell in row.items() if name.startswith("N=")]
        for task in ("parity", "s3", "a5")
        for row in facts[f"{task}, answers right by length"]
    }
    assert seeds == 5 and report["wall_seconds"] < 30 * 60
    for task in ("parity", "s3"):
        assert answers(task, "log_steps") == answers(task, "chain_of_thought") == [100.0] * 5
    assert min(answers("a5", "chain_of_thought")) > 99 and round(np.mean(answers("a5", "log_steps"))) == 98
    for task, chance in (("parity", 50), ("s3", 100 / 6), ("a5", 100 / 60)):
        error = 100 * (chance / 100 * (1 - chance / 100) / 512) ** 0.5
        assert all(abs(x - chance) < 4 * error for x in by_length[task, "one_step"])
        twice = {arm: by_length[task, arm][-1] for arm in ("one_step", "looped", "chain_of_thought")}
        assert all(abs(x - chance) < 8 * error for x in twice.values()), twice
        assert 1.5 < mean(rows[task, "looped"]["seconds in all"]) / mean(rows[task, "log_steps"]["seconds in all"]) < 4
    assert sum(x > 99 for x in answers("parity", "looped")) == 2 and max(answers("s3", "looped")) < 25
    assert [round(by_length[task, "log_steps"][-1]) for task in ("s3", "a5")] == [63, 55]
    assert abs(by_length["parity", "log_steps"][-1] - 50) < 3


def test_kept_weights_and_conversions_are_what_the_readme_says_of_them():
    facts = kept("expressivity/constructions")["facts"]
    of = lambda start: next(rows for name, rows in facts.items() if name.startswith(start))
    pair = lambda cell: [float(x) for x in cell.split(" / ")]
    longest = {
        name: max(row["N"] for row in of("weights") if row["automaton"] == name) for name in ("parity", "s3", "a5")
    }
    assert longest == {"parity": 1024, "s3": 1024, "a5": 256}
    for row in of("weights"):
        for dtype in ("float32", "bfloat16"):
            assert row[f"{dtype}: errors"] == "0 of 10"
            margins = pair(row[f"{dtype}: margins"])
            assert margins[0] > 0.98 and (np.array(margins) >= pair(row["margins promised"])).all()
    assert facts["cells that the layer's planner selects wrongly"] == 0
    for row in of("scale c"):
        wrong = {row[name] for name in ("parity", "s3", "a5")}
        assert row["c"] > 0.5 or wrong == {"20 of 20"}
        assert row["c"] < 1.5 or wrong == {"0 of 20"}
        assert (row["margin at least"] != "–") == (row["c"] >= 2)

    runs = {row["conversion"]: row for row in of("conversions")}
    assert all(row["equal"] == "30 of 30" and row["as accounted"] == "yes" for row in runs.values())
    assert {bits for bits in (4, 6, 8) if any(f" {bits} bits" in name for name in runs)} == {4, 6, 8}
    again, once = (int(runs[f"looped, D=8, 6 bits, T=9, as an MDM{how}"]["P"]) for how in ("", " that writes once"))
    assert once == 9 * again
    by_causal, by_all, without = of("attention by attention, float64, 3 layers of width 5, 6 positions")
    assert (by_causal["symbols"], by_all["symbols"], without["largest difference"]) == (24, 36, "9.7")
    assert by_causal["largest difference"] == "3.1e-15" and float(by_all["largest difference"]) <= 3.1e-15


def test_kept_results_are_what_the_readme_says_of_them():
    bayes = kept("orders/bayes")
    assert bayes["facts"]["learned"]["root first"] >= 4 and bayes["config"]["seeds"] == 5
    assert bayes["metrics"]["learned, share of the way from plain to fixed"]["mean"] >= 0.9
    assert bayes["facts"]["cold"]["root first"] == 0

    sums = kept("studies/sums")["metrics"]
    gain = lambda arm: (sums[f"{arm} - base: right answers"][n] for n in ("mean", "standard_error"))
    told = lambda arm: "{:.0f} ± {:.0f}".format(*gain(arm))
    assert [told(f"exact_count{how}") for how in ("@systematic", "")] == ["31 ± 9", "16 ± 9"]
    assert [told(arm) for arm in ("p_pots+mirror", "base@systematic")] == ["-25 ± 11", "-24 ± 9"]
    right = kept("studies/sums")["facts"]["right answers by seed, %"]
    of_spread = results.over_seeds(np.subtract(right["exact_count@systematic"], right["exact_count"]))
    assert (round(of_spread.mean), round(of_spread.standard_error)) == (15, 7)
    cell = lambda study, arm, column: next(
        row[column] for row in kept(f"studies/{study}")["facts"]["arms"] if row["arm"] == arm
    )
    share = cell("text", "exact_count@systematic", "share of base's calls to its last bound")
    noise = [
        cell("markov", arm, "noise of the gradient norm, base / this")
        for arm in ("base+mirror", "p_pots", "exact_count")
    ]
    assert share.startswith("0.88") and noise[1].startswith("3.5") and noise[2].startswith("28")
    assert float(noise[0].split()[0]) < 3.5
    arms = {row["arm"]: row for row in kept("studies/sums")["facts"]["arms"]}
    assert arms["exact_count@systematic"]["share of base's calls to its last bound"].startswith("0.609 ± 0.05")
    assert arms["exact_count@systematic"]["right answers, %"].startswith("86.5 ± 4.9")
    assert [f"{variance.largest_gain(eps):.1f}" for eps in (1e-3, 1e-8)] == ["1.8", "4.6"]
    for row in kept("schedules/search-text")["facts"]["comparison"]:
        rival = not row["schedule"].startswith("beta") and row["schedule"] != "all in the last step"
        assert not rival or float(row["standard errors"]) > 3
    sweep = json.loads((tables.RESULTS / "benchmarks" / "schedule_sweep.json").read_text())
    assert (sweep["compilations"], sweep["schedules"]) == (1, 100) and sweep["seconds"] < 20


def test_kept_policies_and_preferences_are_what_the_readme_says_of_them():
    right = lambda report, name: kept(f"anyprocess/{report}")["metrics"][name]["mean"]
    assert (
        right("sudoku9", "any_process: held out") > right("sudoku9_baselines", "any_order (confidence): held out") + 20
    )
    assert right("sudoku9_baselines", "autoregressive: held out") == 0
    tests = {row["test"]: row for row in kept("anyprocess/text_selfcorrect")["facts"]["tests"]}
    before, after = "edits to the clean text before, %", "after, %"
    worse = {name: float(row[after]) > float(row[before]) for name, row in tests.items() if before in row}
    assert worse == {"wrong letters": True, "missing letters": True, "surplus masks": False}

    sums = kept("prefer/arithmetic")["metrics"]
    gain = {arm: sums[f"{arm} - start: right answers"] for arm in ("8x1", "fine_tuning")}
    assert all(x["mean"] > 2 * x["standard_error"] for x in gain.values())
    assert gain["fine_tuning"]["mean"] > gain["8x1"]["mean"]
    ahead = sums["8x1 - 1x1+apart+iid: right answers"]
    assert (round(ahead["mean"], 1), round(ahead["standard_error"], 1)) == (2.2, 0.6)
    of = lambda name, arm: kept(f"prefer/{name}")["metrics"][f"{arm}: variance of the score"]["mean"]
    assert of("arithmetic", "8x1") < of("arithmetic", "1x1+apart+iid") / 10
    for draws in ("1x1", "4x1", "8x1"):
        assert of("ablation", f"{draws}+iid") < of("ablation", f"{draws}+apart+iid") / 3
    for n in (4, 8):
        assert of("ablation", f"{n}x1+iid") < of("ablation", f"1x{n}+iid")
    for way in ("+iid", "+apart+iid"):
        assert of("ablation", f"8x1{way}") < of("ablation", f"4x1{way}") < of("ablation", f"1x1{way}")


def test_kept_rewards_are_what_the_readme_says_of_them():
    found = kept("reinforce/arithmetic")
    gain = {arm: found["metrics"][f"{arm} - start: right answers"] for arm in found["config"]["arms"]}
    assert all(x["mean"] > 2 * x["standard_error"] for x in gain.values())
    low = {arm for arm, x in gain.items() if x["mean"] < 10}
    assert low == {"diffu_grpo", "wd1"} and min(x["mean"] for arm, x in gain.items() if arm not in low) > 24
    countdown = kept("reinforce/countdown")
    gain = [countdown["metrics"][f"{arm} - start: right answers"] for arm in countdown["config"]["arms"]]
    assert all(0 < x["mean"] < 5 for x in gain)
    assert max(x["mean"] for x in gain) - min(x["mean"] for x in gain) < 2 * max(x["standard_error"] for x in gain)
    for report in (found, countdown):
        bias = {row["surrogate"]: row["surrogate - B, start"] for row in report["facts"]["bias against B, nats"]}
        assert bias["coupled counts"] == bias["exact count"] == "0"
        assert all(not bias[name].startswith("0 ") and bias[name] != "0" for name in ("mean field", "coupled rates"))


def test_a_changed_number_is_noticed(tmp_path):
    folder = tmp_path / "training" / "demo"
    folder.mkdir(parents=True)
    report = {"title": "a|b", "metrics": {"validation bits_per_char": {"mean": 2.61234, "standard_error": 0.0123}}}
    (folder / "report.json").write_text(json.dumps(report))
    readme = "<!-- table:training -->\nold\n<!-- /table -->"
    first = tables.rebuild(readme, tmp_path)
    assert "2.612 ± 0.012" in first and "a\\|b" in first and tables.rebuild(first, tmp_path) == first
    report["metrics"]["validation bits_per_char"]["mean"] = 2.5
    (folder / "report.json").write_text(json.dumps(report))
    assert tables.rebuild(first, tmp_path) != first


def test_unknown_and_empty_tables_are_named(tmp_path):
    with pytest.raises(ValueError, match="nope"):
        tables.rebuild("<!-- table:nope --><!-- /table -->")
    assert tables.main(["tables", "--help"]) == 2  # and README is as it was
    with pytest.raises(ValueError, match="nothing matches"):
        tables.render("training", tmp_path)
