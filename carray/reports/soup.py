"""Text report of a soup: barriers, and what it is worth beside what it replaces."""

from __future__ import annotations

from shlex import quote

from carray.ensemble.result import FIGURE_VERDICTS
from carray.ensemble.soup_result import Soup
from carray.predictions.statistics import Comparison
from carray.reports.hints import predict_hint, runs_option
from carray.reports.table import table, wrapped

SCORES = ("models:>7", "log-loss:>26.4f", "top-1:>26.4f")


def soup_lines(soup: Soup) -> list[str]:
    """Return everything that a person should know before using the soup."""
    barriers = [
        (found.trial, found.height, "joins" if found.is_passable else "parted")
        for found in soup.barriers
    ]
    rows = [
        (
            *(f"{'>' if row.what == soup.rule else ' '} {row.what}", row.models),
            *(row.scores.log_loss, row.scores.top1),
        )
        for row in soup.rows
    ]
    images = soup.against_vote.images
    lines = [
        f"{soup.rule} of study {soup.study}, {soup.seconds:.1f} s",
        "",
        *table(("weights towards:<32", "barrier:>9.4f", "val:>8"), barriers),
        "",
        *table((f"{images} images of {soup.judged_on}:<34", *SCORES), rows),
        "",
        _against_single(soup),
        f"Against the soft vote: {_text(soup.against_vote)}.",
        "",
        f"trial: {soup.trial}",
    ]
    if soup.package is not None:
        name = soup.trial.rpartition("/")[0]
        lines += [f"model package: {soup.package}", "next:", predict_hint(soup.package)]
        lines += [f"  carray ensemble {quote(name)} --top 1{runs_option(soup.package.parents[1])}"]
    return [part for line in lines for part in wrapped(line)]


def _against_single(soup: Soup) -> str:
    """Compare the soup with the best trial, unless it is that trial."""
    if len(soup.soup_of) == 1:
        return (
            f"No average is better than {soup.soup_of[0]} alone on val: the soup is that trial, "
            "its weights as they are."
        )
    return (
        f"The soup of {', '.join(soup.soup_of)} against the best single trial: "
        f"{_text(soup.against_single)}."
    )


def _text(found: Comparison) -> str:
    figures = (
        ("log-loss", found.single.log_loss, found.ensemble.log_loss, found.log_loss_p),
        ("top-1", found.single.top1, found.ensemble.top1, found.top1_p),
    )
    verdicts = found.log_loss_verdict, found.top1_verdict
    return "; ".join(
        f"{name} {before.value:.4f} -> {after.value:.4f}, p = {p:.2g}: {FIGURE_VERDICTS[verdict]}"
        for (name, before, after, p), verdict in zip(figures, verdicts, strict=True)
    )
