CREATE TABLE `agent_runs` (
	`id` text PRIMARY KEY NOT NULL,
	`status` text NOT NULL,
	`model` text NOT NULL,
	`policy_version` integer,
	`request` text NOT NULL,
	`trajectory_id` text,
	`answer` text,
	`usage` text,
	`error` text,
	`created_at` integer NOT NULL,
	`started_at` integer,
	`ended_at` integer
);
--> statement-breakpoint
CREATE INDEX `agent_runs_status` ON `agent_runs` (`status`,`id`);--> statement-breakpoint
CREATE TABLE `api_keys` (
	`id` text PRIMARY KEY NOT NULL,
	`name` text NOT NULL,
	`hash` text NOT NULL,
	`scopes` text NOT NULL,
	`created_at` integer NOT NULL,
	`revoked_at` integer
);
--> statement-breakpoint
CREATE UNIQUE INDEX `api_keys_hash_unique` ON `api_keys` (`hash`);--> statement-breakpoint
CREATE TABLE `conversations` (
	`id` text PRIMARY KEY NOT NULL,
	`session_key` text,
	`last_trajectory_id` text,
	`created_at` integer NOT NULL,
	`updated_at` integer NOT NULL,
	FOREIGN KEY (`last_trajectory_id`) REFERENCES `trajectories`(`id`) ON UPDATE no action ON DELETE set null
);
--> statement-breakpoint
CREATE UNIQUE INDEX `conversations_session_key_unique` ON `conversations` (`session_key`);--> statement-breakpoint
CREATE INDEX `conversations_last_trajectory` ON `conversations` (`last_trajectory_id`);--> statement-breakpoint
CREATE TABLE `feedback` (
	`id` text PRIMARY KEY NOT NULL,
	`trajectory_id` text NOT NULL,
	`step_id` text,
	`metric_name` text NOT NULL,
	`value` text NOT NULL,
	`tags` text NOT NULL,
	`created_at` integer NOT NULL,
	FOREIGN KEY (`trajectory_id`) REFERENCES `trajectories`(`id`) ON UPDATE no action ON DELETE cascade,
	FOREIGN KEY (`step_id`) REFERENCES `steps`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE INDEX `feedback_trajectory` ON `feedback` (`trajectory_id`);--> statement-breakpoint
CREATE TABLE `policies` (
	`version` integer PRIMARY KEY NOT NULL,
	`parent_version` integer,
	`kind` text NOT NULL,
	`path` text NOT NULL,
	`sha256` text NOT NULL,
	`source_run_id` text,
	`status` text NOT NULL,
	`evaluation` text,
	`created_at` integer NOT NULL,
	FOREIGN KEY (`parent_version`) REFERENCES `policies`(`version`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE UNIQUE INDEX `policies_one_active` ON `policies` (`status`) WHERE "status" = 'active';--> statement-breakpoint
CREATE TABLE `steps` (
	`id` text PRIMARY KEY NOT NULL,
	`parent_id` text,
	`position` integer NOT NULL,
	`kind` text NOT NULL,
	`policy_version` integer NOT NULL,
	`tokens` blob NOT NULL,
	`logprobs` blob,
	`behaviour_logprobs` blob,
	`entropies` blob,
	`sampling` text,
	`step_entropy` real,
	`delta_entropy` real,
	`text` text NOT NULL,
	`started_at` integer NOT NULL,
	`duration_ms` real NOT NULL,
	FOREIGN KEY (`parent_id`) REFERENCES `steps`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE INDEX `steps_parent` ON `steps` (`parent_id`);--> statement-breakpoint
CREATE TABLE `tasks` (
	`id` text PRIMARY KEY NOT NULL,
	`family` text NOT NULL,
	`split` text NOT NULL,
	`question` text NOT NULL,
	`truths` text NOT NULL,
	`verifier` text NOT NULL,
	`tools` text NOT NULL,
	`metadata` text NOT NULL
);
--> statement-breakpoint
CREATE INDEX `tasks_split` ON `tasks` (`split`,`family`,`id`);--> statement-breakpoint
CREATE INDEX `tasks_family` ON `tasks` (`family`,`id`);--> statement-breakpoint
CREATE TABLE `tool_calls` (
	`step_id` text PRIMARY KEY NOT NULL,
	`id` text NOT NULL,
	`name` text NOT NULL,
	`arguments` text NOT NULL,
	`result` text,
	`error` text,
	`duration_ms` real NOT NULL,
	`effects` text NOT NULL,
	`served` text NOT NULL,
	FOREIGN KEY (`step_id`) REFERENCES `steps`(`id`) ON UPDATE no action ON DELETE cascade
);
--> statement-breakpoint
CREATE TABLE `training_metrics` (
	`run_id` text NOT NULL,
	`step` integer NOT NULL,
	`metrics` text NOT NULL,
	`created_at` integer NOT NULL,
	PRIMARY KEY(`run_id`, `step`),
	FOREIGN KEY (`run_id`) REFERENCES `training_runs`(`id`) ON UPDATE no action ON DELETE cascade
);
--> statement-breakpoint
CREATE TABLE `training_runs` (
	`id` text PRIMARY KEY NOT NULL,
	`status` text NOT NULL,
	`trigger` text NOT NULL,
	`algorithm` text NOT NULL,
	`settings` text NOT NULL,
	`base_version` integer,
	`candidate_version` integer,
	`step` integer NOT NULL,
	`steps` integer NOT NULL,
	`counts` text NOT NULL,
	`gate` text,
	`error` text,
	`created_at` integer NOT NULL,
	`started_at` integer,
	`ended_at` integer
);
--> statement-breakpoint
CREATE INDEX `training_runs_status` ON `training_runs` (`status`,`id`);--> statement-breakpoint
CREATE TABLE `trajectories` (
	`id` text PRIMARY KEY NOT NULL,
	`source` text NOT NULL,
	`conversation_id` text,
	`leaf_step_id` text NOT NULL,
	`policy_version` integer NOT NULL,
	`task_id` text,
	`training_run_id` text,
	`group_id` text,
	`branched_from_step_id` text,
	`status` text NOT NULL,
	`end_reason` text NOT NULL,
	`answer` text,
	`format_ok` integer NOT NULL,
	`reward` real,
	`rewarded_at` integer,
	`tool_calls` integer NOT NULL,
	`sampled_tokens` integer NOT NULL,
	`created_at` integer NOT NULL,
	FOREIGN KEY (`conversation_id`) REFERENCES `conversations`(`id`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`leaf_step_id`) REFERENCES `steps`(`id`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`branched_from_step_id`) REFERENCES `steps`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE INDEX `trajectories_leaf` ON `trajectories` (`leaf_step_id`);--> statement-breakpoint
CREATE INDEX `trajectories_policy` ON `trajectories` (`policy_version`,`id`);--> statement-breakpoint
CREATE INDEX `trajectories_source` ON `trajectories` (`source`,`id`);--> statement-breakpoint
CREATE INDEX `trajectories_task` ON `trajectories` (`task_id`,`id`);--> statement-breakpoint
CREATE INDEX `trajectories_run` ON `trajectories` (`training_run_id`,`id`);--> statement-breakpoint
CREATE INDEX `trajectories_group` ON `trajectories` (`group_id`,`id`);--> statement-breakpoint
CREATE INDEX `trajectories_conversation` ON `trajectories` (`conversation_id`,`id`);--> statement-breakpoint
CREATE INDEX `trajectories_reward` ON `trajectories` (`reward`,`id`);--> statement-breakpoint
CREATE INDEX `trajectories_created` ON `trajectories` (`created_at`);--> statement-breakpoint
CREATE INDEX `trajectories_scored` ON `trajectories` (`source`,`rewarded_at`);--> statement-breakpoint
CREATE TABLE `trajectory_tools` (
	`tool_name` text NOT NULL,
	`trajectory_id` text NOT NULL,
	PRIMARY KEY(`tool_name`, `trajectory_id`),
	FOREIGN KEY (`trajectory_id`) REFERENCES `trajectories`(`id`) ON UPDATE no action ON DELETE cascade
);
--> statement-breakpoint
CREATE INDEX `trajectory_tools_trajectory` ON `trajectory_tools` (`trajectory_id`);