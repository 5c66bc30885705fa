"""Who decides the shape in a simulation: Paceline's planner, its rivals, and shapes that never change."""
