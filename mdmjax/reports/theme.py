"""What the pages share: colours for light and dark, type, layout, and the frame that forbids anything from outside."""

from html import escape

STYLE = """
:root { color-scheme: light dark;
  --page: #fbfbfa; --card: #ffffff; --ink: #1d2126; --muted: #667079; --rule: #e3e6e8; --accent: #0b6e99;
  --given: #fff0c9; --bar: #cfd6da; --shadow: 0 1px 2px rgb(20 30 40 / .06);
  --series-0: #0b6e99; --series-1: #c2571a; --series-2: #4b8b3b; --series-3: #8a4fa3;
  --series-4: #b08900; --series-5: #c0376a; --series-6: #5a6b7a; --series-7: #00897b; }
@media (prefers-color-scheme: dark) { :root {
  --page: #14171a; --card: #1c2024; --ink: #e8eaec; --muted: #98a2ab; --rule: #2f353a; --accent: #5cc0ec;
  --given: #4a3d17; --bar: #434b52; --shadow: none;
  --series-0: #5cc0ec; --series-1: #f0935a; --series-2: #8fce7c; --series-3: #cb9be0;
  --series-4: #e3c14b; --series-5: #f07fa6; --series-6: #a9b6c2; --series-7: #4fd0c0; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 2.2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 2.4rem 0 .7rem; }
h3 { font-size: .85rem; font-weight: 600; margin: 0 0 .4rem; }
p { margin: 0 0 .5rem; }
.muted, figcaption, th, dt { color: var(--muted); }
.lead { font-size: 1.05rem; }
.chips { display: flex; flex-wrap: wrap; gap: .35rem 1.1rem; font-size: .85rem; color: var(--muted); }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 1rem 1.15rem;
  box-shadow: var(--shadow); overflow-x: auto; }
.hero { display: flex; flex-wrap: wrap; gap: 1rem 3rem; align-items: baseline; margin-top: 1.4rem; }
.hero b { font-size: 2.5rem; font-weight: 650; letter-spacing: -.02em; color: var(--accent); line-height: 1.1; }
.hero .error { font-size: 1.25rem; }
.grid { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 500; font-size: .8rem; }
th, td { padding: .38rem .9rem .38rem 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
tr:last-child > td { border-bottom: 0; }
td.n, th.n { text-align: right; white-space: nowrap; }
tr.us td { font-weight: 600; }
.track { position: relative; height: .8rem; margin-top: .35rem; min-width: 8rem; }
.track i { position: absolute; inset: 0 auto 0 0; background: var(--bar); border-radius: 2px; }
.us .track i { background: var(--accent); }
.track u { position: absolute; top: .1rem; bottom: .1rem; min-width: 2px; opacity: .8;
  border: solid var(--ink); border-width: 0 1.5px;
  background: linear-gradient(var(--ink), var(--ink)) center / 100% 1.5px no-repeat; }
figure { margin: 0; }
svg { display: block; width: 100%; height: auto; }
svg text { font-family: inherit !important; }
pre, code, .mono { font-size: .84rem;
  font-family: ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, monospace; }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.55; }
mark { background: var(--given); color: inherit; border-radius: 2px; }
details { margin-top: .8rem; }
summary { cursor: pointer; font-weight: 600; padding: .1rem 0 .5rem; }
dl { display: grid; grid-template-columns: minmax(7rem, max-content) minmax(0, 1fr); gap: .15rem 1.3rem;
  margin: 0; font-size: .9rem; }
dd { margin: 0; overflow-wrap: anywhere; }
dd div div { padding-left: 1.2rem; }
@media (max-width: 40rem) { .track { min-width: 4rem; } .hero b { font-size: 2rem; } }
"""

# Nothing is fetched: the page carries its styles, pictures and scripts.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def page(title: str, body: str, style: str = "") -> str:
    """A whole HTML document. `title` is escaped here, `body` is HTML already."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}{style}</style>
</head>
<body><main>
{body}
</main></body>
</html>
"""
