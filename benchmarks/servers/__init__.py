"""Server processes: Managers and Services, each in a separate process."""
