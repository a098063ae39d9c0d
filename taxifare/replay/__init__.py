"""What would have happened under other policies.

`replaying` walks through the `months` and has each judged (`judging`) under each of the `policies`; `hindsight` then
scores every model on every month, which makes the `results`. What is trained on the way is shared by the policies
(`trainings`), done in processes (`workers`) and kept (`store`).

Pages are made in `reports`. Nothing is registered, asked or promoted: docs/decisions.md, under replay.
"""
