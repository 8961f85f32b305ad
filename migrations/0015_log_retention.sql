CREATE INDEX `agent_runs_conversation` ON `agent_runs` (`conversation_id`) WHERE "conversation_id" IS NOT NULL;--> statement-breakpoint
CREATE INDEX `responses_trajectory` ON `responses` (`trajectory_id`) WHERE "trajectory_id" IS NOT NULL;--> statement-breakpoint
CREATE INDEX `trajectories_offered` ON `trajectories` (`offered_tools`) WHERE "offered_tools" IS NOT NULL;