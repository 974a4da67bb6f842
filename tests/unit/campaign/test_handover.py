from streaming_attention.campaign.handover import hand_over, machine_of_controller
from streaming_attention.machine.topology import Machine


def test_jobs_get_the_machine_of_their_controller():
    machine = Machine(nodes=3, sockets_per_node=2, cores_per_socket=24, threads_per_core=2, memory_gib=187.5)
    environment = {}
    hand_over(machine, environment)
    assert machine_of_controller(environment) == machine


def test_a_controller_has_none():
    assert machine_of_controller({}) is None
