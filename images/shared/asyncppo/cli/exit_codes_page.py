"""`docs/exit-codes.md`, made from the codes: `python -m asyncppo.cli.exit_codes_page --write|--check`. Owns the page's layout only."""

from asyncppo.api.generated import generated_file_main
from asyncppo.cli.exit_codes import ExitCode

PATH = "docs/exit-codes.md"


def page() -> str:
    """`docs/exit-codes.md`."""
    rows = [f"| {code.value} | {_cell(code.meaning)} | {_cell(code.remedy)} |" for code in ExitCode]
    return "\n".join(
        [
            "# Exit codes of `asyncppo`",
            "",
            "<!-- Made by `python -m asyncppo.cli.exit_codes_page --write` from the code's constants; edit those. -->",
            "",
            "| code | what happened | what to do |",
            "|---|---|---|",
            *rows,
            "",
            "Messages for people go to standard error, results to standard output.",
            "",
        ]
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    generated_file_main(PATH, page)
