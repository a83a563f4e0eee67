"""What is at the other end of the clients: Managers and Services, each in a process of its own."""
