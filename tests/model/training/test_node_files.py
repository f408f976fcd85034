"""Files between nodes that share no folder: two processes, each with a folder that stands for the same path on its node."""

import os
import subprocess
import sys
from pathlib import Path

RANK = """if True:
    import os, sys
    from pathlib import Path
    import torch.distributed as dist
    from model.training import node_files
    from model.training.node_files import agreed, collect, nodes_apart, spread
    folder, rank = Path(sys.argv[1]), int(sys.argv[2])
    node_files.CHUNK_BYTES = 1000
    os.environ |= {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    assert agreed(rank + 7) == 7
    assert nodes_apart(folder / "shared") == ()
    mine = folder / f"node-{rank}"
    apart = nodes_apart(mine)
    assert apart == (1,)
    (mine / "parts").mkdir(parents=True)
    (mine / f"parts/{rank}.bin").write_bytes(bytes([rank]) * 2500)
    collect(mine / "parts", apart)
    spread(mine, [mine / "initial/weights", mine / "empty"], apart)
    dist.destroy_process_group()
"""


def test_files_reach_the_first_node_and_the_others(tmp_path: Path) -> None:
    (tmp_path / "node-0/initial").mkdir(parents=True)
    (tmp_path / "node-0/initial/weights").write_bytes(b"w" * 3000)
    (tmp_path / "node-0/empty").touch()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", RANK, str(tmp_path)]
    other = subprocess.Popen([*command, "1"], env=environment)
    try:
        subprocess.run([*command, "0"], env=environment, check=True)
        assert other.wait(300) == 0
    finally:
        other.kill()
    files = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    files.pop("meeting", None)  # torch removes it when the last process leaves
    assert files == {
        "node-0/parts/0.bin": b"\0" * 2500,
        "node-0/parts/1.bin": b"\1" * 2500,
        "node-0/initial/weights": b"w" * 3000,
        "node-0/empty": b"",
        "node-1/initial/weights": b"w" * 3000,
        "node-1/empty": b"",
    }
