"""The frame of our HTML pages: one style sheet, no script, nothing from elsewhere."""

from __future__ import annotations

import html

__all__ = ["page"]

_STYLE = """
:root { color-scheme: light; }
body { margin: 0; background: #f6f7f9; color: #1f2933; font: 16px/1.55 system-ui, "Segoe UI", Roboto, sans-serif; }
header, section, main.notebook { max-width: 62rem; margin: 1.2rem auto; padding: 1.1rem 1.6rem; background: #fff;
  border: 1px solid #e3e7ec; border-radius: 8px; }
header { border-top: 4px solid #0072b2; }
h1 { font-size: 1.5rem; margin: .2rem 0 .4rem; } h2 { font-size: 1.2rem; margin: .3rem 0 .8rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .5rem; }
a { color: #005a8e; } a:focus-visible { outline: 3px solid #e69f00; outline-offset: 2px; }
table { border-collapse: collapse; font-size: .92rem; display: block; overflow-x: auto; }
th, td { text-align: left; vertical-align: top; padding: .38rem .9rem .38rem 0; border-bottom: 1px solid #e9edf1; }
thead th { color: #52606d; font-weight: 600; } tbody th { font-weight: 600; white-space: nowrap; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.badge { display: inline-block; padding: .08rem .55rem; border-radius: 1rem; font-size: .8rem; font-weight: 600;
  white-space: nowrap; vertical-align: .1em; }
.good { background: #dcf3e4; color: #14532d; } .bad { background: #fde2d5; color: #7c2d12; }
.warn { background: #fdf0cf; color: #6b4700; } .neutral { background: #e7ebf0; color: #3e4c59; }
.error { border-left: 4px solid #d55e00; padding: .1rem 1rem; background: #fff7f3; }
pre, code { font: .86rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: .6rem 0; }
figure { margin: 1.4rem 0; } img { max-width: 100%; height: auto; }
.notebook .highlight { background: #f4f6f8; border: 1px solid #e3e7ec; border-radius: 6px; padding: .3rem .9rem; }
.notebook .jp-OutputArea-output, .notebook .output_area { overflow-x: auto; }
.notebook .output_stderr, .notebook .jp-RenderedText[data-mime-type*=stderr] { color: #7c2d12; }
.anchor-link { display: none; }
/* colours of code */
.highlight .k, .highlight .kn, .highlight .ow, .highlight .kc { color: #00558c; font-weight: 600; }
.highlight .s1, .highlight .s2, .highlight .sa, .highlight .si { color: #14634a; }
.highlight .c1 { color: #616e7c; font-style: italic; } .highlight .mi, .highlight .mf { color: #9a3412; }
.highlight .nf, .highlight .nn { color: #5b2a86; }
@media print { body { background: #fff; } header, section, main.notebook { border: 0; }
  figure, tr { break-inside: avoid; } }
"""


def page(title: str, body: str) -> str:
    """A whole page; *body* is trusted HTML, *title* is text."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )
