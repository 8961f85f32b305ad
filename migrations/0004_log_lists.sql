DROP INDEX `trajectories_policy`;--> statement-breakpoint
DROP INDEX `trajectories_source`;--> statement-breakpoint
DROP INDEX `trajectories_task`;--> statement-breakpoint
DROP INDEX `trajectories_run`;--> statement-breakpoint
DROP INDEX `trajectories_group`;--> statement-breakpoint
DROP INDEX `trajectories_conversation`;--> statement-breakpoint
DROP INDEX `trajectories_reward`;--> statement-breakpoint
DROP INDEX `trajectories_created`;--> statement-breakpoint
ALTER TABLE `trajectories` ADD `entropy_jump` real;--> statement-breakpoint
ALTER TABLE `trajectories` ADD `consumed_by` text;--> statement-breakpoint
ALTER TABLE `feedback` ADD `late` integer DEFAULT false NOT NULL;--> statement-breakpoint
ALTER TABLE `trajectory_tools` ADD `created_at` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
-- What older rows would have had.
UPDATE `trajectories` SET `entropy_jump` = (
  WITH RECURSIVE path (id, parent_id, delta) AS (
    SELECT id, parent_id, delta_entropy FROM steps WHERE id = trajectories.leaf_step_id
    UNION ALL SELECT s.id, s.parent_id, s.delta_entropy
      FROM path CROSS JOIN steps s ON s.id = path.parent_id)
  SELECT max(delta) FROM path);--> statement-breakpoint
UPDATE `trajectory_tools` SET `created_at` = (
  SELECT created_at FROM trajectories WHERE trajectories.id = trajectory_tools.trajectory_id);--> statement-breakpoint
CREATE INDEX `trajectories_status` ON `trajectories` (`status`,`created_at`,`id`);--> statement-breakpoint
CREATE INDEX `trajectories_end` ON `trajectories` (`end_reason`,`created_at`,`id`);--> statement-breakpoint
CREATE INDEX `trajectories_jump` ON `trajectories` ((CASE WHEN "entropy_jump" < 0 THEN 0 WHEN "entropy_jump" > 0.95 THEN 19 ELSE CAST("entropy_jump" * 20 AS INTEGER) END),`created_at`,`id`);--> statement-breakpoint
CREATE INDEX `trajectories_policy` ON `trajectories` (`policy_version`,`created_at`,`id`);--> statement-breakpoint
CREATE INDEX `trajectories_source` ON `trajectories` (`source`,`created_at`,`id`);--> statement-breakpoint
CREATE INDEX `trajectories_task` ON `trajectories` (`task_id`,`created_at`,`id`);--> statement-breakpoint
CREATE INDEX `trajectories_run` ON `trajectories` (`training_run_id`,`created_at`,`id`);--> statement-breakpoint
CREATE INDEX `trajectories_group` ON `trajectories` (`group_id`,`created_at`,`id`);--> statement-breakpoint
CREATE INDEX `trajectories_conversation` ON `trajectories` (`conversation_id`,`created_at`,`id`);--> statement-breakpoint
CREATE INDEX `trajectories_reward` ON `trajectories` ((CASE WHEN "reward" < -1 THEN 0 WHEN "reward" > 1.25 THEN 18 ELSE CAST("reward" * 8 + 8 AS INTEGER) END),`created_at`,`id`);--> statement-breakpoint
CREATE INDEX `trajectories_created` ON `trajectories` (`created_at`,`id`);--> statement-breakpoint
CREATE INDEX `trajectory_tools_created` ON `trajectory_tools` (`tool_name`,`created_at`,`trajectory_id`);