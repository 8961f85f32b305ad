DROP INDEX `trajectories_created`;--> statement-breakpoint
DROP INDEX `trajectories_reward`;--> statement-breakpoint
DROP INDEX `trajectories_jump`;--> statement-breakpoint
CREATE INDEX `trajectories_created` ON `trajectories` (`created_at`,`id`,`source`,`status`,`end_reason`,`policy_version`,`tenant`,`reward`,`entropy_jump`);--> statement-breakpoint
CREATE INDEX `trajectories_reward` ON `trajectories` ((CASE WHEN "reward" < -1 THEN 0 WHEN "reward" = -1 THEN 1 WHEN "reward" < 0 THEN CAST("reward" * 8 + 10 AS INTEGER) WHEN "reward" = 0 THEN 10 WHEN "reward" < 1 THEN CAST("reward" * 8 + 11 AS INTEGER) WHEN "reward" = 1 THEN 19 WHEN "reward" > 1 THEN 20 END),`created_at`,`id`,`reward`);--> statement-breakpoint
CREATE INDEX `trajectories_jump` ON `trajectories` ((CASE WHEN "entropy_jump" <= 0 THEN 0 WHEN "entropy_jump" > 0.95 THEN 20 ELSE CAST("entropy_jump" * 20 + 1 AS INTEGER) END),`created_at`,`id`,`entropy_jump`);