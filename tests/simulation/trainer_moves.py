"""Moves of the programs that read: they seek, save and load states, come and go."""

from __future__ import annotations

from tests.simulation.delivery_moves import pick
from tests.simulation.rows import following
from tests.simulation.trainer import Trainer
from tests.simulation.world import TRAINERS_MAX, World


def seek(world: World) -> bool:
    """Begin a pass elsewhere: another epoch, the middle of one, or the same again."""
    trainer = pick(world, world.trainers)
    if trainer is None:
        return False
    others = [one for one in world.trainers if one.share is not None and one is not trainer]
    is_again = trainer.due is not None and world.rng.random() < 0.3
    if trainer.share is not None and others and world.rng.random() < 0.7:
        world.fault("seek to a sharer")
        trainer.seek(following(trainer.layout, trainer.num_samples, pick(world, others).yielded))
    elif is_again:
        world.fault("the same epoch again")
        trainer.seek((trainer.yielded[0], 0))
    else:
        world.fault("seek")
        trainer.seek(world.place_for(trainer))
    return True


def checkpoint(world: World) -> bool:
    """Save a state."""
    trainer = pick(world, world.trainers)
    state = trainer and trainer.checkpoint()
    if state:
        world.checkpoints.append(state)
        world.fault("checkpoint")
    return bool(state)


def restore(world: World) -> bool:
    """Go back to a state: in the same program, or in a new one with another layout."""
    state, trainer = pick(world, list(world.checkpoints)), pick(world, world.trainers)
    if state is None or trainer is None:
        return False
    if trainer.spec == state.spec and world.rng.random() < 0.5:
        world.fault("loaded a state")
        trainer.load(state)
        return True
    world.fault("restored a state")
    end_trainer(world, trainer)
    world.come(state)
    return True


def come(world: World) -> bool:
    """Let another trainer begin."""
    if len(world.trainers) >= TRAINERS_MAX:
        return False
    world.come()
    return True


def leave(world: World) -> bool:
    """Let a trainer end, by itself or by a signal; another may come instead."""
    trainer = pick(world, world.trainers)
    if trainer is not None:
        end_trainer(world, trainer)
        if len(world.trainers) < 2:
            world.come()
    return trainer is not None


def end_trainer(world: World, trainer: Trainer) -> None:
    """End a trainer, either way."""
    world.trainers.remove(trainer)
    if world.rng.random() < 0.5:
        world.fault("trainer killed")
        trainer.die()
    else:
        world.fault("trainer left")
        trainer.close()
