"""What several stages do: read windows, walk trajectories, measure."""
