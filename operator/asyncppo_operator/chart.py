"""The chart's copy of the CRD: `python -m asyncppo_operator.chart --write|--check`. A chart cannot reach files outside its folder.

Owns the place of the copy. Does not own the text (`asyncppo.api.crd`).
"""

from asyncppo.api.crd import crd_text
from asyncppo.api.generated import generated_file_main

PATH = "charts/asyncppo/files/crds/asyncppojobs.asyncppo.io.yaml"


if __name__ == "__main__":
    generated_file_main(PATH, crd_text)
