"""What each rank runs: `deepspeed --num_gpus 2 --module limo_nb.sft FOLDER …`."""

from limo_nb.sft.train import main

main()
