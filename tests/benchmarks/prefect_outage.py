"""A Prefect server that is away for longer than Prefect's own client waits, while a stage runs: do all its reports arrive?

    python -m tests.benchmarks.prefect_outage [--seconds 80]

Starts a server in a folder of its own, and a stage that reports five times a second; kills the server, starts it again at the
same address, and lets the stage end. The client's retries are Prefect's default, which last 62 s. Ends with an error if the stage
ended early, its artifact is not committed, or the server has not every log line and report.
"""

import argparse
import tempfile
import time
from pathlib import Path

from tests.benchmarks.harness import machine, print_table, say
from tests.support.prefect_servers import LocalPrefect
from tests.support.reporting_stages import ReportingStage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=80.0, help="How long the server is away.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prefect = LocalPrefect(Path(folder), PREFECT_CLIENT_MAX_RETRIES="5")
        try:
            prefect.start_server()
            stage = ReportingStage(prefect, prefect.folder)
            prefect.kill_server()
            say(f"the server is away for {options.seconds:.0f} s")
            time.sleep(options.seconds)
            assert stage.is_running(), stage.log()
            prefect.start_server()
            stage.let_end()
            stage.wait()
            num_lines = stage.check_reports()
        finally:
            prefect.stop()
    print_table(
        "A Prefect server that is away while a stage runs",
        ["Seconds away", "Log lines of the stage", "Log lines on the server", "Run ended as"],
        [(f"{options.seconds:.0f}", num_lines, num_lines, "COMPLETED")],
        f"{machine()}.",
    )


if __name__ == "__main__":
    main()
