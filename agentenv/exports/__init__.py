"""Exports: episode trees and environments in the forms that other tools read, and some of them back.

| name | what it writes | file |
|---|---|---|
| `to_dataframe`, `node_rows`, `write_csv` | a table, a row per node | `table` |
| `to_dataset_rows`, `to_dataset`, `from_dataset_rows` | rows of Hugging Face datasets, and back | `dataset_rows` |
| `token_rows`, `verl_batch`, `skyrl_batch`, `prime_rl_batches` | batches for other trainers | `batches` |
| `to_atif`, `from_atif` | ATIF 1.8 trajectories with branches, and back | `atif` |
| `trackio_traces`, `log_to_trackio` | traces of trackio, spans as nodes | `traces` |
| `nemo_gym_rows`, `nemo_gym_server`, `write_nemo_gym` | environments for NeMo Gym | `nemo_gym` |
| `write_harbor` | repair tasks as Harbor folders | `harbor` |

Nothing is imported before its name is used: some need packages that only they need.
"""

from typing import TYPE_CHECKING

from agentenv.lazy import lazy_names

if TYPE_CHECKING:
    from agentenv.exports.atif import from_atif, to_atif
    from agentenv.exports.batches import TokenRow, prime_rl_batches, skyrl_batch, token_rows, verl_batch
    from agentenv.exports.dataset_rows import from_dataset_rows, to_dataset, to_dataset_rows
    from agentenv.exports.harbor import write_harbor
    from agentenv.exports.nemo_gym import nemo_gym_rows, nemo_gym_server, write_nemo_gym
    from agentenv.exports.table import node_rows, to_dataframe, write_csv
    from agentenv.exports.traces import log_to_trackio, trackio_traces

__all__ = [
    "TokenRow",
    "from_atif",
    "from_dataset_rows",
    "log_to_trackio",
    "nemo_gym_rows",
    "nemo_gym_server",
    "node_rows",
    "prime_rl_batches",
    "skyrl_batch",
    "to_atif",
    "to_dataframe",
    "to_dataset",
    "to_dataset_rows",
    "token_rows",
    "trackio_traces",
    "verl_batch",
    "write_csv",
    "write_harbor",
    "write_nemo_gym",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "TokenRow": "batches",
        "prime_rl_batches": "batches",
        "skyrl_batch": "batches",
        "token_rows": "batches",
        "verl_batch": "batches",
        "from_atif": "atif",
        "from_dataset_rows": "dataset_rows",
        "node_rows": "table",
        "to_atif": "atif",
        "to_dataframe": "table",
        "to_dataset": "dataset_rows",
        "to_dataset_rows": "dataset_rows",
        "log_to_trackio": "traces",
        "trackio_traces": "traces",
        "nemo_gym_rows": "nemo_gym",
        "nemo_gym_server": "nemo_gym",
        "write_nemo_gym": "nemo_gym",
        "write_csv": "table",
        "write_harbor": "harbor",
    },
)
