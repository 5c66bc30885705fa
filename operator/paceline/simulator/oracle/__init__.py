"""The clairvoyant optimum: what the same traffic costs at least, for somebody who knew it in advance.

`benchmark` and `simulate` divide the GPU-hours of a policy by it (regret). Three figures, from the same curves:

    linear_programme   a bound from below, several tensor-parallel sizes, budget of misses, GPU cap
    levels             exact for one tensor-parallel size
    schedule           a plan that a simulator can replay: what the optimum costs at most

All three look at whole slots of time (`Problem`) and take what a shape does in a slot from curves of attainment
that were measured by simulating that shape (`curves`), never from one capacity figure.
"""
