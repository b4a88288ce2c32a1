"""The entry of each rank: `deepspeed --num_gpus 2 --module limo_nb.sft FOLDER …`."""

from limo_nb.sft.ranks import main

main()
